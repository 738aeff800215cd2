"""How right pseudo-labels are, by each of several scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

from .calibration import JudgedDetections, judge_detections
from .precision_recall import PrecisionRecallCurve

ALL_CLASSES = 'all'


@dataclass(frozen=True)
class ScoredBoxes:
    """The boxes that a teacher finds on one image, with several scores.

    Attributes:
        boxes: (N, 4), x1 y1 x2 y2 in the frame of the original image.
        labels: (N,), class indices.
        scores: Name of a score to its values in [0, 1], (N,).
    """

    boxes: Tensor
    labels: Tensor
    scores: Mapping[str, Tensor]


@dataclass(frozen=True)
class TrueBoxes:
    """The ground truth of one image.

    Attributes:
        boxes: (M, 4), x1 y1 x2 y2.
        labels: (M,), class indices.
        ignored: (M,), bool: COCO's ``iscrowd``; a detection on such a box counts neither way.
    """

    boxes: Tensor
    labels: Tensor
    ignored: Tensor

    @classmethod
    def none(cls) -> TrueBoxes:
        """An image without a defect."""
        empty = torch.zeros(0, dtype=torch.long)
        return cls(torch.zeros(0, 4), empty, empty.bool())

    @property
    def counted(self) -> TrueBoxes:
        """The boxes that are not ignored."""
        mine = ~self.ignored
        return TrueBoxes(self.boxes[mine], self.labels[mine], self.ignored[mine])

    def excused(self, boxes: Tensor, labels: Tensor, min_share: float = 0.5) -> Tensor:
        """Says which detections lie on an ignored box of their class, (N,), bool.

        Args:
            boxes: (N, 4).
            labels: (N,).
            min_share: Share of a detection that the ignored box must hold.
        """
        ignored = self.ignored
        inside = bbox_overlaps(boxes, self.boxes[ignored].to(boxes), mode='iof')
        same = labels[:, None] == self.labels[ignored].to(labels)[None, :]
        return (same & (inside >= min_share)).any(dim=1)

    def countable(self, boxes: Tensor, labels: Tensor, iou_threshold: float = 0.5) -> Tensor:
        """Says which detections can be found right or wrong, (N,), bool.

        Left out are those that are excused, unless they reach a box that counts: what an ignored
        box holds is neither defect nor background.

        Args:
            boxes: (N, 4).
            labels: (N,).
            iou_threshold: Overlap from which a detection reaches a box.
        """
        counted = self.counted
        overlaps = bbox_overlaps(boxes, counted.boxes.to(boxes))
        same = labels[:, None] == counted.labels.to(labels)[None, :]
        reaches = (same & (overlaps >= iou_threshold)).any(dim=1)
        return reaches | ~self.excused(boxes, labels)


@dataclass(frozen=True)
class QualityRow:
    """One line of the table.

    Attributes:
        score: Name of the score.
        class_name: Name of the class, or ``'all'``. The AP of ``'all'`` is the mean over the
            classes, as usual; its other values are of all boxes pooled.
        true_boxes, found_boxes: Numbers of boxes.
        average_precision: AP@0.5 by COCO's rules.
        recall: Of all boxes found, whatever their score.
        recall_at_precision: Largest recall at which this score has the reference precision.
        reference_recall: The same of the reference score.
        precision_at_reference: Precision of this score at the reference recall.
    """

    score: str
    class_name: str
    true_boxes: int
    found_boxes: int
    average_precision: float
    recall: float
    recall_at_precision: float
    reference_recall: float
    precision_at_reference: float


@dataclass(frozen=True)
class PseudoLabelQuality:
    """Table and curves.

    Attributes:
        rows: For each class and all classes together, one for each score.
        curves: (score, class name) to its curve.
        reference: Score that sets the recall to compare at.
        reference_precision: Precision of the reference score there.
    """

    rows: list[QualityRow]
    curves: Mapping[tuple[str, str], PrecisionRecallCurve]
    reference: str
    reference_precision: float

    def row(self, score: str, class_name: str = ALL_CLASSES) -> QualityRow:
        """Returns the line of a score and a class."""
        wanted = (score, class_name)
        return next(row for row in self.rows if (row.score, row.class_name) == wanted)


def judge_by_score(
    found: Sequence[ScoredBoxes], truth: Sequence[TrueBoxes], score: str, iou_threshold: float = 0.5
) -> list[JudgedDetections]:
    """Judges the boxes of each image, in the order of one of their scores.

    Detections that only lie on an ignored true box are left out.
    """
    judged = []
    for image, true in zip(found, truth, strict=True):
        counted = true.counted
        result = judge_detections(
            image.boxes,
            image.scores[score],
            image.labels,
            counted.boxes,
            counted.labels,
            iou_threshold,
        )
        excused = true.excused(image.boxes, image.labels, iou_threshold).cpu().numpy()
        valid = result.correct | ~excused
        judged.append(
            JudgedDetections(result.scores[valid], result.labels[valid], result.correct[valid])
        )
    return judged


def measure_quality(
    found: Sequence[ScoredBoxes],
    truth: Sequence[TrueBoxes],
    classes: Sequence[str],
    scores: Sequence[str],
    reference_precision: float = 0.8,
    iou_threshold: float = 0.5,
) -> PseudoLabelQuality:
    """Compares scores on the same boxes.

    Args:
        found: One entry per image.
        truth: Likewise.
        classes: Class names.
        scores: Names of scores to compare; the first is the reference.
        reference_precision: Where the others are compared with the reference: at the recall where
            it has this precision, in (0, 1].
        iou_threshold: Overlap from which a box is right.
    """
    labels = torch.cat([true.labels[~true.ignored] for true in truth]) if truth else torch.zeros(0)
    counts = np.bincount(labels.long().cpu().numpy(), minlength=len(classes))
    curves = {}
    for score in scores:
        judged = JudgedDetections.concatenate(judge_by_score(found, truth, score, iou_threshold))
        curves[score, ALL_CLASSES] = PrecisionRecallCurve.of(judged, int(counts.sum()))
        for label, name in enumerate(classes):
            mine = judged.labels == label
            of_class = JudgedDetections(
                judged.scores[mine], judged.labels[mine], judged.correct[mine]
            )
            curves[score, name] = PrecisionRecallCurve.of(of_class, int(counts[label]))
    rows = [
        _row(curves, score, name, classes, scores[0], reference_precision)
        for name in (*classes, ALL_CLASSES)
        for score in scores
    ]
    return PseudoLabelQuality(rows, curves, scores[0], reference_precision)


def _row(
    curves: Mapping[tuple[str, str], PrecisionRecallCurve],
    score: str,
    name: str,
    classes: Sequence[str],
    reference: str,
    precision: float,
) -> QualityRow:
    curve = curves[score, name]
    average = curve.average_precision
    if name == ALL_CLASSES:
        of_classes = [curves[score, each].average_precision for each in classes]
        known = [value for value in of_classes if not np.isnan(value)]
        average = float(np.mean(known)) if known else float('nan')
    reference_recall = curves[reference, name].recall_at(precision)
    return QualityRow(
        score,
        name,
        curve.true_boxes,
        len(curve.scores),
        average,
        float(curve.recall[-1]) if len(curve.recall) else 0.0,
        curve.recall_at(precision),
        reference_recall,
        curve.precision_at(reference_recall),
    )
