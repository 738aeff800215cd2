"""Which detectors can ignore a region, and how to make them do it."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn


def enable_ignore_regions(detector: nn.Module, overlap: float) -> bool:
    """Lets the assigners of a detector respect ``ignored_instances``.

    Assigners of anchors (ATSS, max-IoU) can, but MMDetection leaves it switched off. Those of
    points and queries (FCOS, RTMDet, DETR) have no such notion.

    Args:
        detector: The student.
        overlap: Share of an anchor inside an ignored box from which it is ignored, in (0, 1].

    Returns:
        Whether every assigner of the detector now ignores such regions.
    """
    found = list(_assigners(detector))
    able = [assigner for assigner in found if hasattr(assigner, 'ignore_iof_thr')]
    for assigner in able:
        if assigner.ignore_iof_thr <= 0:
            assigner.ignore_iof_thr = overlap
    return bool(found) and len(able) == len(found)


def _assigners(detector: nn.Module) -> Iterator[object]:
    for module in detector.modules():
        for name in ('assigner', 'bbox_assigner', 'initial_assigner', 'alignment_assigner'):
            value = module.__dict__.get(name)
            yield from value if isinstance(value, list) else [value] if value is not None else []
