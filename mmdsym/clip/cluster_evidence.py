"""Agreement of the many boxes that a dense detector finds around each box it reports.

Suppression keeps the best box of a heap and forgets the heap. Where its members disagree about
the extent, so does the detector.
"""

from __future__ import annotations

import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor

from .evidence import largest, logit


class ClusterEvidence:
    """Votes for a box, their mean score, and how far they scatter.

    Needs ``candidates`` in the meta information of each image (see
    :func:`mmdsym.models.suppress`), with ``bboxes``, ``scores`` and ``labels`` in the frame of the
    boxes; an image without them is judged from its own boxes alone.

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
