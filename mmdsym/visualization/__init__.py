"""Pictures for people: sheets of detections beside ground truth."""

from .detections import DetectionSheet, draw_detections
from .sheet import Box, compose_sheet, draw_panel

__all__ = ['Box', 'DetectionSheet', 'compose_sheet', 'draw_detections', 'draw_panel']
