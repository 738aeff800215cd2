"""Hooks, one promise each."""

from .channels_last_hook import ChannelsLastHook
from .pseudo_label_monitor_hook import PseudoLabelMonitorHook
from .stage_hook import StageHook
from .teacher_update_hook import TeacherUpdateHook
from .threshold_calibration_hook import ThresholdCalibrationHook

__all__ = [
    'ChannelsLastHook',
    'PseudoLabelMonitorHook',
    'StageHook',
    'TeacherUpdateHook',
    'ThresholdCalibrationHook',
]
