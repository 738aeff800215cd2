"""Whether the teacher finds a box again when the image is turned or mirrored.

A surface has no upright position, so a real defect stays where it is in every orientation; what
appears in one alone is likely noise. Each further view costs a forward pass of the teacher.
"""

from __future__ import annotations

import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor

from .evidence import logit


class StabilityEvidence:
    """Scores and overlaps of the best match of each box in other views of its image.

    Needs ``views`` in the meta information of each image: a list with the boxes of each other
    view, of one length for all images, moved back into the frame of the boxes. An image without
    views is judged as if they had shown the same boxes.

    Args:
        overlap: IoU from which a box of the class counts as the same box.
    """

    names = ('mean_score', 'lowest_score', 'mean_overlap', 'found_share')

    def __init__(self, overlap: float = 0.5) -> None:
        self.overlap = overlap

    def __call__(
        self, predictions: list[InstanceData], features: list[Tensor] | None = None
    ) -> list[Tensor]:
        """See :class:`mmdsym.clip.evidence.Evidence`; scores are log-odds."""
        return [self._judge(found, found.metainfo.get('views') or [found]) for found in predictions]

    def _judge(self, found: InstanceData, views: list[InstanceData]) -> Tensor:
        matches = [self._match(found, view) for view in views]
        scores = torch.stack([score for score, _ in matches])
        overlaps = torch.stack([overlap for _, overlap in matches])
        found_again = (overlaps >= self.overlap).float()
        own = found.scores.float()
        return torch.stack(
            [
                logit(torch.cat([own[None], scores]).mean(dim=0)),
                logit(scores.amin(dim=0)),
                overlaps.mean(dim=0),
                found_again.mean(dim=0),
            ],
            dim=1,
        )

    def _match(self, found: InstanceData, view: InstanceData) -> tuple[Tensor, Tensor]:
        """Score of the best match, and its overlap; both 0 without one.

        A box of the view speaks only for the box that it fits best. Otherwise a false box half
        beside a right one would live on the score of the right one.
        """
        boxes = found.bboxes.float()
        if not len(view) or not len(boxes):
            return boxes.new_zeros(len(boxes)), boxes.new_zeros(len(boxes))
        overlap = bbox_overlaps(boxes, view.bboxes.float())
        overlap = overlap * (found.labels[:, None] == view.labels[None, :])
        overlap = torch.where(overlap == overlap.amax(dim=0, keepdim=True), overlap, 0.0)
        score = torch.where(overlap >= self.overlap, view.scores.float()[None], 0.0)
        return score.amax(dim=1), overlap.amax(dim=1)
