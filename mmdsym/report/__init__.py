"""The report of a run: one page with all that its reader may ask."""

from .folder import read_warnings
from .writing import write_report

__all__ = ['read_warnings', 'write_report']
