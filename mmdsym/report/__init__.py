"""The report of a run: one page with all that its reader may ask."""

from .writing import write_report

__all__ = ['write_report']
