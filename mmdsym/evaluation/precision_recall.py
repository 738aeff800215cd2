"""Precision over recall of judged detections, with COCO's conventions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .calibration import JudgedDetections

RECALL_POINTS = np.linspace(0, 1, 101)
"""COCO takes the precision at these recalls."""


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Precision and recall of all detections down to each one, best score first.

    Attributes:
        scores: Descending, shape (N,).
        precision: Share of right ones among the detections so far, shape (N,).
        recall: Share of the true boxes found so far, shape (N,); NaN without true boxes.
        true_boxes: Number of true boxes.
    """

    scores: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    true_boxes: int

    @classmethod
    def of(cls, detections: JudgedDetections, true_boxes: int) -> PrecisionRecallCurve:
        """Sorts judged detections of any number of images and classes."""
        order = np.argsort(-detections.scores, kind='mergesort')
        right = np.cumsum(detections.correct[order])
        recall = right / true_boxes if true_boxes else np.full(len(right), np.nan)
        precision = right / np.arange(1, len(right) + 1)
        return cls(detections.scores[order], precision, recall, true_boxes)

    @property
    def envelope(self) -> np.ndarray:
        """Best precision at this recall or any higher one, shape (N,)."""
        return np.maximum.accumulate(self.precision[::-1])[::-1]

    @property
    def average_precision(self) -> float:
        """COCO's: mean of the envelope at 101 recalls, in [0, 1]; NaN without true boxes."""
        if not self.true_boxes:
            return float('nan')
        return float(self._envelope_at(RECALL_POINTS).mean())

    def precision_at(self, recall: float) -> float:
        """Precision (envelope) at a recall; 0 where it is not reached, NaN where that is NaN."""
        if np.isnan(recall) or not self.true_boxes:
            return float('nan')
        return float(self._envelope_at(np.array([recall]))[0])

    def recall_at(self, precision: float) -> float:
        """Largest recall with at least this precision; 0 where it is never reached."""
        if not self.true_boxes:
            return float('nan')
        reached = np.flatnonzero(self.precision >= precision)
        return float(self.recall[reached[-1]]) if len(reached) else 0.0

    def _envelope_at(self, recalls: np.ndarray) -> np.ndarray:
        index = np.searchsorted(self.recall, recalls, side='left')
        return np.append(self.envelope, 0.0)[index]


def mean_average_precision(detections: JudgedDetections, true_boxes: np.ndarray) -> float:
    """Returns the mean of the average precision over the classes that have true boxes.

    Args:
        detections: Judged at one overlap, on any number of images.
        true_boxes: Number of true boxes of each class, shape (num_classes,).

    Returns:
        In [0, 1]; NaN where no class has a true box.
    """
    precisions = []
    for label in np.flatnonzero(true_boxes):
        mine = detections.labels == label
        of_class = JudgedDetections(
            detections.scores[mine], detections.labels[mine], detections.correct[mine]
        )
        curve = PrecisionRecallCurve.of(of_class, int(true_boxes[label]))
        precisions.append(curve.average_precision)
    return float(np.mean(precisions)) if precisions else float('nan')
