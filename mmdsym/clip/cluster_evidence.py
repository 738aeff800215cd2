"""Agreement of the many boxes that a dense detector finds around each box it reports.

Suppression keeps the best box of a heap and forgets the heap. Where its members disagree about
the extent, so does the detector.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmcv.ops import batched_nms
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor, nn

from .evidence import largest, logit


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
    kept.set_metainfo(dict(candidates=candidates))
    return kept


class ClusterEvidence:
    """Votes for a box, their mean score, and how far they scatter.

    Needs ``candidates`` in the meta information of each image (:func:`suppress`), with ``bboxes``,
    ``scores`` and ``labels`` in the frame of the boxes; an image without them is judged from its
    own boxes alone.

    Args:
        overlap: IoU from which a candidate of the class votes for a box.
    """

    names = (
        'log_votes',
        'log_vote_mass',
        'mean_vote',
        'mean_overlap',
        'scatter',
        'overlap_with_mean',
        'rival_class',
    )

    def __init__(self, overlap: float = 0.6) -> None:
        self.overlap = overlap

    def __call__(
        self, predictions: list[InstanceData], features: list[Tensor] | None = None
    ) -> list[Tensor]:
        """See :class:`mmdsym.clip.evidence.Evidence`."""
        return [
            self._judge(found, found.metainfo.get('candidates') or found) for found in predictions
        ]

    def _judge(self, found: InstanceData, candidates: InstanceData) -> Tensor:
        boxes, near = found.bboxes.float(), candidates.bboxes.float()
        if not len(boxes) or not len(near):
            return boxes.new_zeros(len(boxes), len(self.names))
        overlap = bbox_overlaps(boxes, near)
        same = found.labels[:, None] == candidates.labels[None, :]
        votes = same & (overlap >= self.overlap)
        weight = votes * candidates.scores.float()
        mass = weight.sum(dim=1)
        share = weight / mass.clamp(min=1e-6)[:, None]
        mean_box = share @ near
        away = near[None] - mean_box[:, None]
        scatter = (share[:, :, None] * away.square()).sum(dim=1).sqrt()
        side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1.0).log().mean(dim=1).exp()
        count = votes.sum(dim=1).float()
        rivals = ~same & (overlap >= self.overlap)
        return torch.stack(
            [
                count.log1p(),
                (mass + 0.01).log(),
                logit(mass / count.clamp(min=1)),
                (share * overlap).sum(dim=1),
                scatter.mean(dim=1) / side,
                bbox_overlaps(boxes, mean_box, is_aligned=True),
                logit(largest(candidates.scores.float().expand(len(boxes), -1), rivals, 0.0)),
            ],
            dim=1,
        )
