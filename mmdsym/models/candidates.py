"""A detector's boxes before suppression, and suppression that keeps them in mind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmcv.ops import batched_nms
from mmengine.structures import InstanceData
from torch import nn


class Candidates(InstanceData):
    """Boxes before suppression, which all slices of the boxes that were kept share.

    MMEngine copies meta information deeply with every slice, and there are many of both.
    """

    def __deepcopy__(self, memo: dict) -> Candidates:
        """Returns itself: nobody writes into boxes that were suppressed."""
        return self


@contextmanager
def candidates_shown(detector: nn.Module, max_boxes: int = 1000) -> Iterator[dict]:
    """Lets a detector report its boxes before suppression, for as long as the context lasts.

    Args:
        detector: Any MMDetection detector.
        max_boxes: Most boxes of an image.

    Yields:
        What :func:`suppress` needs to come to the detector's own boxes: ``iou_threshold`` and
        ``max_boxes``; empty for a detector that suppresses nothing, such as DETR.
    """
    head = getattr(detector, 'roi_head', None) or getattr(detector, 'bbox_head', None)
    settings = getattr(head, 'test_cfg', None)
    nms = None if settings is None else settings.get('nms')
    if nms is None or nms.get('iou_threshold') is None:
        yield {}
        return
    before = nms['iou_threshold'], settings.get('max_per_img', 100)
    # No overlap exceeds 1.
    nms['iou_threshold'], settings['max_per_img'] = 1.0, max_boxes
    try:
        yield dict(iou_threshold=before[0], max_boxes=before[1])
    finally:
        nms['iou_threshold'], settings['max_per_img'] = before


def suppress(
    candidates: InstanceData, iou_threshold: float = 0.6, max_boxes: int = 100
) -> InstanceData:
    """Suppresses as the detector does, and keeps the candidates as meta information.

    Args:
        candidates: A detector's boxes before suppression: ``bboxes`` (N, 4), ``scores``,
            ``labels`` (N,), see :func:`candidates_shown`.
        iou_threshold: Overlap from which the worse of two boxes of a class goes.
        max_boxes: Most boxes to keep.

    Returns:
        The kept boxes, best first, with ``candidates`` in their meta information.
    """
    kept = candidates[:]
    if len(candidates):
        settings = dict(type='nms', iou_threshold=iou_threshold)
        _, keep = batched_nms(
            candidates.bboxes.float(), candidates.scores.float(), candidates.labels, settings
        )
        kept = candidates[keep[:max_boxes]]
    kept.set_metainfo(dict(candidates=Candidates(**dict(candidates.items()))))
    return kept
