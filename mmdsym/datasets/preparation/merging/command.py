"""The whole way of a merge in one function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmdsym.datasets.preparation.inspection import inspect
from mmdsym.datasets.preparation.mending import mend, refuse
from mmdsym.datasets.preparation.merging.finding import ImageFinder
from mmdsym.datasets.preparation.merging.merge import merge_labels
from mmdsym.datasets.preparation.merging.prepared import read_prepared
from mmdsym.datasets.preparation.merging.proposals import (
    find_proposals,
    missing_record,
    read_proposals,
    settle_untouched,
)
from mmdsym.datasets.preparation.merging.read import read_corrections
from mmdsym.datasets.preparation.merging.subsets import extend_subsets
from mmdsym.datasets.preparation.prepare import remarks_on, write_prepared
from mmdsym.errors import UserError


def merge(
    export: Path,
    prepared: Path,
    target: Path,
    prefer: str | None = None,
    label_source: str = 'corrected',
    classes: Sequence[str] | None = None,
    calibration_fraction: float = 0.15,
    fix: bool = False,
    force: bool = False,
    suggested: Path | None = None,
    untouched: str = 'leave',
    named: Path | None = None,
) -> bool:
    """Writes a new data set: a prepared one with the labels of an export.

    Args:
        export: A json, or a folder with an export; see `read_corrections`.
        prepared: The data set that the labels belong to; it stays as it is.
        target: Folder of the new data set.
        prefer: What wins where an image has other labels already: `'new'` or `'old'`.
        label_source: What to note as origin of the new labels.
        classes: All class names, to add some; by default those of the data set.
        calibration_fraction: Share of the newly labelled images that calibrates, in (0, 1).
        fix: Whether to leave out what cannot be read and to mend boxes.
        force: Whether an existing target that differs may be replaced.
        suggested: Folder that `tools/suggest_labels.py` wrote; by default the record of what it
            proposed is looked for in and beside the export.
        untouched: What becomes of images that came back as proposed: `'leave'` or `'accept'`.
        named: What the user named as export, where that is a zip that it was unpacked from.

    Returns:
        False when the target was there already, with the same content.

    Raises:
        UserError: When the export is malformed, labels of people differ, or the target is the
            data set itself.
    """
    if target.resolve() == prepared.resolve():
        raise UserError(
            f'{target} is the data set to merge into, which stays as it is; give the new one '
            'another --name'
        )
    data = read_prepared(prepared)
    source = data.source
    source.classes = _all_classes(source.classes, classes)
    finder = ImageFinder(source.images + source.unlabelled)
    corrections = read_corrections(export, finder)
    ignored = []
    if fix:
        ignored = [f'ignored {problem}' for problem in corrections.problems]
        for problem in corrections.problems:
            corrections.boxes.pop(problem.image, None)
    else:
        refuse(corrections.problems)
    named = named or export
    record = find_proposals(export, suggested, named)
    proposals = read_proposals(record, finder) if record else {}
    origins, remarks = settle_untouched(corrections, proposals, untouched)
    if record is None:
        remarks += missing_record(corrections, named)
    report = merge_labels(source, corrections.boxes, label_source, prefer, origins)
    source.notes = [f'Labels of {named.name} were merged into {prepared.name}.', *remarks]
    source.notes += report.sentences()
    problems = inspect(source)
    mended = ignored
    if fix:
        mended = ignored + mend(source, problems)
    else:
        refuse(problems)
    subsets = extend_subsets(source, data.subsets, report.confirmed, calibration_fraction)
    source.notes += remarks_on(source, subsets)
    return write_prepared(source, subsets, target, problems, mended, force)


def _all_classes(known: Sequence[str], given: Sequence[str] | None) -> list[str]:
    missing = [label for label in known if given and label not in given]
    if missing:
        raise UserError(
            f'--classes leaves out {", ".join(missing)}, which the data set has; name all classes'
        )
    return list(given or known)
