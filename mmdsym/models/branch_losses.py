"""What the student learns from the branches of a batch, in one pass of backbone and neck."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmdet.models.utils import rename_loss_dict, reweight_loss_dict
from mmdet.structures import SampleList
from torch import Tensor, nn

from .dense_distillation import (
    TeacherScores,
    class_logits_recorded,
    distillation_loss,
    scores_in_view,
)
from .joint_features import features_given, joint_features, pad_alike

Losses = dict[str, Tensor | list[Tensor]]


class Branch(NamedTuple):
    """Images that the student learns from in one way.

    Attributes:
        images: (N, C, H, W), normalised.
        samples: Their data samples.
        weight: Of an image's loss, compared with that of a labelled one.
        prefix: Of the losses' names.
        taught: Which images' boxes teach; ``None`` for all.
        teacher_scores: What the teacher says of all places of these images, to be learnt from all
            of them; ``None`` for nothing.
        dense_weight: Of that loss, compared with that of the boxes.
    """

    images: Tensor
    samples: SampleList
    weight: float
    prefix: str
    taught: Sequence[int] | None = None
    teacher_scores: TeacherScores | None = None
    dense_weight: float = 0.0


def losses_of_branches(student: nn.Module, branches: Sequence[Branch]) -> list[Losses]:
    """Returns the student's weighted losses on each branch.

    With a weight of 1, each image of a branch counts as much as one of the first branch.

    Args:
        student: Any MMDetection detector.
        branches: The labelled one first.
    """
    batches = pad_alike(
        [branch.images for branch in branches], [branch.samples for branch in branches]
    )
    losses = []
    for images, branch, features in zip(
        batches, branches, joint_features(student, batches), strict=True
    ):
        if branch.teacher_scores is None:
            found = _of_boxes(student, images, branch, features)
        else:
            found = _of_boxes_and_scores(student, images, branch, features)
        # A loss is a mean over its branch: two images shall not weigh as much as eight.
        weighted = reweight_loss_dict(found, branch.weight / len(batches[0]))
        losses.append(rename_loss_dict(branch.prefix, weighted))
    return losses


def _of_boxes(
    student: nn.Module, images: Tensor, branch: Branch, features: tuple[Tensor, ...]
) -> Losses:
    """The detector's own losses on the images whose boxes teach, times their number."""
    taught, samples = branch.taught, branch.samples
    if taught is not None:
        if not taught:
            return {}
        images, samples = images[taught], [samples[index] for index in taught]
        features = tuple(level[taught] for level in features)
    with features_given(student, features):
        return reweight_loss_dict(student.loss(images, samples), len(images))


def _of_boxes_and_scores(
    student: nn.Module, images: Tensor, branch: Branch, features: tuple[Tensor, ...]
) -> Losses:
    """The same, and how far the class scores of all images are from the teacher's."""
    taught = list(range(len(images))) if branch.taught is None else list(branch.taught)
    rest = [index for index in range(len(images)) if index not in taught]
    with class_logits_recorded(student) as passes:
        losses = _of_boxes(student, images, branch, features)
        if rest:
            student.bbox_head(tuple(level[rest] for level in features))
    # The head has seen them in two passes.
    order = torch.argsort(torch.tensor([*taught, *rest], device=images.device))
    logits = [torch.cat(levels)[order] for levels in zip(*passes, strict=True)]
    targets = scores_in_view(branch.teacher_scores, branch.samples, logits, student.bbox_head)
    weight = branch.dense_weight * len(images)
    return losses | {'loss_dense': weight * distillation_loss(logits, targets)}
