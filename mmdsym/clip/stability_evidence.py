"""Whether the teacher finds a box again when the image is turned or mirrored.

A surface has no upright position, so a real defect stays where it is in every orientation; what
appears in one alone is likely noise. Each further view costs a forward pass of the teacher.
"""

from __future__ import annotations

import copy

import torch
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor, nn

from .evidence import logit


@torch.no_grad()
def predict_turned(detector: nn.Module, images: Tensor, samples: SampleList) -> list[InstanceData]:
    """Shows a detector its images mirrored at their second diagonal; costs one forward pass.

    This exchanges the axes and mirrors both, so that no detector can answer from habit.

    Args:
        detector: A plain detector in evaluation mode.
        images: (N, C, H, W), as its ``predict`` takes them.
        samples: Their N data samples; left as they are.

    Returns:
        Per image its boxes, in the frame of ``images``.
    """
    height, width = images.shape[-2:]
    turned = images.transpose(-2, -1).flip(-2, -1)
    views = []
    for sample in samples:
        view = copy.deepcopy(sample)
        # Padding now lies above and to the left: the whole canvas counts as image.
        shape = dict(img_shape=(width, height), batch_input_shape=(width, height))
        view.set_metainfo(shape | dict(pad_shape=(width, height)))
        views.append(view)
    results = []
    for view in detector.predict(turned, views, rescale=False):
        found = view.pred_instances
        far = found.bboxes.new_tensor([width, height, width, height])
        found.bboxes = far - found.bboxes[:, [3, 2, 1, 0]]
        results.append(found)
    return results


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
