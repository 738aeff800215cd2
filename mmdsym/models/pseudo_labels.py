"""From the teacher's boxes to pseudo-labels: kept, uncertain or dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_overlaps, bbox_project
from mmengine.structures import InstanceData
from torch import Tensor


class PseudoLabelScorer(Protocol):
    """Second opinion on the teacher's boxes, such as CLIP's."""

    def __call__(self, predictions: list[InstanceData], images: SampleList) -> list[Tensor]:
        """Returns a score in [0, 1] for each box, which replaces the teacher's.

        Args:
            predictions: Per image ``bboxes`` (N, 4) in the frame of the original image,
                ``scores`` (N,) of the teacher and ``labels`` (N,).
            images: Per image its meta data, among them ``img_path``.
        """


class PseudoLabels(NamedTuple):
    """The teacher's boxes on one image, in the frame of the original image.

    Attributes:
        kept: Taken for ground truth.
        uncertain: Neither ground truth nor background.
        dropped: Discarded: what they show counts as background.
    """

    kept: InstanceData
    uncertain: InstanceData
    dropped: InstanceData


class LabelledPredictions(NamedTuple):
    """What the teacher finds on labelled images.

    Attributes:
        predictions: Per image, as for :class:`PseudoLabelScorer`.
        images: Per image its meta data.
        truths: Per image ``bboxes`` (M, 4) in the frame of the original image and ``labels``.
    """

    predictions: list[InstanceData]
    images: SampleList
    truths: list[InstanceData]


@runtime_checkable
class CalibratedScorer(Protocol):
    """A scorer that learns from labelled images how far to trust what it sees.

    Attributes:
        wants_further: Whether images that trained the teacher may help, see :meth:`fit`.
    """

    wants_further: bool

    def fit(
        self,
        predictions: list[InstanceData],
        images: SampleList,
        truths: list[InstanceData],
        further: LabelledPredictions | None = None,
    ) -> list[Tensor]:
        """Learns, and returns a score for each box that was found without its own image.

        In distributed training each rank hands in its own images, and all ranks learn the same
        from all of them; a rank without images calls it with empty lists.

        Args:
            predictions: As for :class:`PseudoLabelScorer`.
            images: As there.
            truths: Per image ``bboxes`` (M, 4) in the frame of the original image and ``labels``.
            further: Labelled images that trained the teacher; given when a stage begins, and to be
                remembered for the calibrations after.
        """


@runtime_checkable
class PseudoLabelReviser(Protocol):
    """A scorer that has the last word on what becomes of the boxes, and sees it."""

    def revise(
        self, labels: list[PseudoLabels], images: SampleList, iteration: int
    ) -> list[PseudoLabels]:
        """Returns the labels to train on at this iteration, one entry per image.

        Args:
            labels: As the thresholds sorted them.
            images: Per image its meta data.
            iteration: The global iteration, so that chance repeats itself in a resumed run.
        """


def select_pseudo_labels(
    predictions: InstanceData, keep: Tensor, drop: Tensor, max_shared_area: float = 0.5
) -> PseudoLabels:
    """Splits predictions by the thresholds of their class.

    An uncertain box that would silence a kept one (:func:`silences`) is dropped.

    Args:
        predictions: ``bboxes`` (N, 4), ``scores`` (N,), ``labels`` (N,).
        keep: Score from which a box of each class is kept, shape (num_classes,).
        drop: Score below which it is dropped, shape (num_classes,).
        max_shared_area: In [0, 1].
    """
    is_kept = predictions.scores >= keep[predictions.labels]
    is_uncertain = ~is_kept & (predictions.scores >= drop[predictions.labels])
    kept = predictions[is_kept]
    is_uncertain &= ~silences(predictions.bboxes, kept.bboxes, max_shared_area)
    return PseudoLabels(kept, predictions[is_uncertain], predictions[~is_kept & ~is_uncertain])


def silences(boxes: Tensor, kept: Tensor, max_shared_area: float = 0.5) -> Tensor:
    """Returns which boxes' regions cannot be ignored without ignoring a kept box beneath them.

    Args:
        boxes: (N, 4).
        kept: (M, 4).
        max_shared_area: Share of its own or of a kept box's area that a box may cover of it.

    Returns:
        Booleans, shape (N,).
    """
    if not len(kept) or not len(boxes):
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    shared = bbox_overlaps(boxes, kept, mode='iof')
    covered = bbox_overlaps(kept, boxes, mode='iof').T
    return torch.maximum(shared, covered).amax(dim=1) > max_shared_area


def in_full_precision(instances: InstanceData) -> InstanceData:
    """Returns boxes whose numbers are float32, whatever mixed precision made of them.

    Args:
        instances: Predictions of one image; left as they are, with their meta information.
    """
    # Slicing makes a new container.
    full = instances[:]
    for name, value in instances.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            full.set_field(value.float(), name)
    return full


def project(
    instances: InstanceData,
    homography: np.ndarray | None,
    shape: tuple[int, int],
    inverse: bool = False,
    min_size: float = 1.0,
) -> InstanceData:
    """Moves boxes between the original image and an augmented view of it.

    Args:
        instances: With ``bboxes`` (N, 4) in the frame to leave.
        homography: (3, 3), original image to view; ``None`` where nothing moved.
        shape: (height, width) of the frame to enter, in pixels; boxes are clipped to it.
        inverse: Go from the view to the original image instead.
        min_size: Boxes narrower or lower than this many pixels afterwards are left out.
    """
    matrix = np.eye(3) if homography is None else np.asarray(homography, dtype=np.float64)
    if inverse:
        # Before it travels to a GPU, which would be waited for.
        matrix = np.linalg.inv(matrix)
    matrix = torch.from_numpy(matrix).to(instances.bboxes)
    # Slicing makes a new container, so that the caller's boxes stay where they are.
    moved = instances[:]
    # Mixed precision would round coordinates to half a pixel, and to a type that no box has.
    with torch.autocast(matrix.device.type, enabled=False):
        moved.bboxes = bbox_project(instances.bboxes, matrix, shape)
    sizes = moved.bboxes[:, 2:] - moved.bboxes[:, :2]
    return moved[(sizes >= min_size).all(dim=1)]


def blank_out(image: Tensor, uncertain: Tensor, kept: Tensor) -> None:
    """Paints the uncertain regions of a normalised image with its mean, in place.

    For detectors whose loss cannot ignore a region: what is painted over may be taken for
    background. Pixels of kept boxes stay.

    Args:
        image: (C, H, W), mean 0.
        uncertain: (N, 4), in the frame of the image.
        kept: (M, 4).
    """
    mask = torch.zeros(image.shape[-2:], dtype=torch.bool, device=image.device)
    for boxes, value in ((uncertain, True), (kept, False)):
        for x1, y1, x2, y2 in boxes.round().long().tolist():
            mask[y1:y2, x1:x2] = value
    image.masked_fill_(mask, 0.0)


@dataclass
class PseudoLabelStatistics:
    """What became of the teacher's boxes since the last look.

    Attributes:
        kept, uncertain, dropped: Boxes per class, shape (num_classes,).
        images: Unlabelled images seen.
        unused_images: Those that taught nothing, for want of a kept box.
        supervised_loss, unsupervised_loss: Sums over the iterations, before the guard below.
        guarded_iterations: Iterations whose unsupervised loss had to be scaled down.
        iterations: Iterations with unlabelled images.
    """

    kept: np.ndarray
    uncertain: np.ndarray
    dropped: np.ndarray
    images: int = 0
    unused_images: int = 0
    supervised_loss: float = 0.0
    unsupervised_loss: float = 0.0
    guarded_iterations: int = 0
    iterations: int = 0

    @classmethod
    def empty(cls, num_classes: int) -> PseudoLabelStatistics:
        """Returns counters that stand at zero."""
        return cls(*(np.zeros(num_classes, dtype=int) for _ in range(3)))

    def count(self, labels: PseudoLabels) -> None:
        """Adds the pseudo-labels of one image."""
        num_classes = len(self.kept)
        self.images += 1
        for name in PseudoLabels._fields:
            of_kind = getattr(labels, name).labels.cpu().numpy()
            setattr(self, name, getattr(self, name) + np.bincount(of_kind, minlength=num_classes))
