"""Agreement of the many boxes that a dense detector finds around each box it reports.

Suppression keeps the best box of a heap and forgets the heap. Where its members disagree about
the extent, so does the detector.
"""

from __future__ import annotations

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from .evidence import alike, largest, logit
from .pair_overlaps import pair_overlaps


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
        scores = candidates.scores.float()
        overlap = pair_overlaps(boxes, near).iou
        same = alike(found.labels, candidates.labels)
        close = overlap >= self.overlap
        votes = close & same
        weight = votes * scores
        mass = weight.sum(dim=1)
        share = weight.div_(mass.clamp(min=1e-6)[:, None])
        mean_box, scatter = _moments(share, near)
        side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1.0).log().mean(dim=1).exp()
        count = votes.sum(dim=1).float()
        return torch.stack(
            [
                count.log1p(),
                (mass + 0.01).log(),
                logit(mass / count.clamp(min=1)),
                torch.linalg.vecdot(share, overlap),
                scatter.mean(dim=1) / side,
                pair_overlaps(boxes[:, None], mean_box[:, None]).iou[:, 0, 0],
                logit(largest(scores[None], close & ~same, default=0.0)),
            ],
            dim=1,
        )


def _moments(share: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of boxes under weights, (N, M) and (M, 4) -> (N, 4) each."""
    # Squares of pixels, of which little remains, are too large for single precision.
    boxes, share = boxes.double(), share.double()
    mean, square = (share @ torch.cat([boxes, boxes.square()], dim=1)).chunk(2, dim=1)
    return mean.float(), (square - mean.square()).clamp(min=0).sqrt().float()
