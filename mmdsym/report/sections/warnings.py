"""What the run itself warned of."""

from __future__ import annotations

from mmdsym.report.material import Material
from mmdsym.report.parts import Section, Table, absent
from mmdsym.report.text_log import warnings_of

_MOST = 20


def warning_section(material: Material) -> Section:
    """Lists the warnings of the log, the most frequent first."""
    found = warnings_of(material.work_dir)
    if not found:
        return absent('The run warned of nothing.')
    rows = [(sentence, str(count)) for sentence, count in found[:_MOST]]
    text = 'Warnings that differ in their numbers alone stand here once, with the last numbers.'
    if len(found) > _MOST:
        text += f' {len(found) - _MOST} rarer ones are left out; the log has them.'
    return Section((text,), (Table(('warning', 'times'), rows),))
