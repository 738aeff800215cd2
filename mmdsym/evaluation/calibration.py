"""Per-class score thresholds from a target precision, so that nobody has to tune them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mmdet.structures.bbox import bbox_overlaps
from scipy.optimize import isotonic_regression
from torch import Tensor

KEEP_NOTHING = 1.0 + 1e-6
"""A threshold above every score: no score of the class reaches the target precision."""


@dataclass(frozen=True)
class JudgedDetections:
    """Detections on labelled images, each found right or wrong.

    Attributes:
        scores: Confidence in [0, 1], shape (N,).
        labels: Class index, shape (N,).
        correct: Whether it matches a ground-truth box of its class, shape (N,).
    """

    scores: np.ndarray
    labels: np.ndarray
    correct: np.ndarray

    @classmethod
    def concatenate(cls, parts: list[JudgedDetections]) -> JudgedDetections:
        """Joins the detections of several images."""
        if not parts:
            return cls(np.zeros(0), np.zeros(0, dtype=int), np.zeros(0, dtype=bool))
        return cls(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ('scores', 'labels', 'correct')
            )
        )


def judge_detections(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    true_boxes: Tensor,
    true_labels: Tensor,
    iou_threshold: float = 0.5,
) -> JudgedDetections:
    """Matches the detections of one image with its ground truth, best score first.

    Args:
        boxes: (N, 4), x1 y1 x2 y2, in the frame of ``true_boxes``.
        scores: (N,), in [0, 1].
        labels: (N,), class indices.
        true_boxes: (M, 4).
        true_labels: (M,).
        iou_threshold: Overlap from which a detection counts as right; each ground-truth box
            takes one detection.
    """
    overlaps = bbox_overlaps(boxes, true_boxes).cpu().numpy()
    same_class = (labels[:, None] == true_labels[None, :]).cpu().numpy()
    overlaps = np.where(same_class, overlaps, 0.0)
    correct = np.zeros(len(boxes), dtype=bool)
    score_array = scores.detach().cpu().numpy().astype(np.float64)
    if overlaps.shape[1]:
        for index in np.argsort(-score_array, kind='stable'):
            best = int(overlaps[index].argmax())
            if overlaps[index, best] >= iou_threshold:
                correct[index] = True
                overlaps[:, best] = 0.0
    return JudgedDetections(score_array, labels.cpu().numpy().astype(int), correct)


def keep_thresholds(
    detections: JudgedDetections,
    num_classes: int,
    target_precision: float,
    prior_boxes: float = 10.0,
) -> np.ndarray:
    """Returns, per class, the lowest score from which boxes are right often enough.

    The precision above a score is estimated from the class's own detections, drawn towards that
    of all classes as if ``prior_boxes`` more had been seen: with twenty boxes of a class a raw
    estimate would jump. Thresholds never fall when ``target_precision`` rises.

    Args:
        detections: Judged on labelled images that did not train the detector.
        num_classes: Length of the result.
        target_precision: In [0, 1].
        prior_boxes: Strength of the common estimate, in boxes, from 0.

    Returns:
        Scores, shape (num_classes,); :data:`KEEP_NOTHING` where no score reaches the target.
    """
    pooled_scores, pooled_precision = _precision_above(detections.scores, detections.correct)
    pooled = _lowest_score(pooled_scores, pooled_precision, target_precision)
    thresholds = np.full(num_classes, pooled)
    for label in range(num_classes):
        mine = detections.labels == label
        if not mine.any():
            continue
        scores, precision = _precision_above(detections.scores[mine], detections.correct[mine])
        seen = np.arange(1, len(scores) + 1)
        position = np.searchsorted(-pooled_scores, -scores, side='right') - 1
        common = pooled_precision[position]
        shrunk = (precision * seen + prior_boxes * common) / (seen + prior_boxes)
        thresholds[label] = _lowest_score(scores, shrunk, target_precision)
    return thresholds


def cover_thresholds(
    detections: JudgedDetections, num_classes: int, covered_recall: float
) -> np.ndarray:
    """Returns, per class, the score above which ``covered_recall`` of the right boxes lie.

    Args:
        detections: Judged on labelled images that did not train the detector.
        num_classes: Length of the result.
        covered_recall: Share of the right detections to cover, in [0, 1].

    Returns:
        Scores, shape (num_classes,). A class without a right detection gets that of all classes;
        without any, :data:`KEEP_NOTHING`.
    """
    right = detections.scores[detections.correct]
    if not len(right):
        return np.full(num_classes, KEEP_NOTHING)
    thresholds = np.full(num_classes, np.quantile(right, 1 - covered_recall, method='lower'))
    for label in range(num_classes):
        mine = detections.scores[detections.correct & (detections.labels == label)]
        if len(mine):
            thresholds[label] = np.quantile(mine, 1 - covered_recall, method='lower')
    return thresholds


def doubt_threshold(detections: JudgedDetections, least_precision: float) -> float:
    """Returns the lowest score at which boxes are right often enough to be in doubt.

    How often boxes of a score are right is estimated over all classes, as a function that never
    falls (isotonic regression): single classes have too few boxes to tell one in ten from none.

    Args:
        detections: Judged on labelled images that did not train the detector.
        least_precision: Share of right boxes among those of one score, in [0, 1].

    Returns:
        A score; :data:`KEEP_NOTHING` where boxes are right less often at every score.
    """
    if not len(detections.scores):
        return KEEP_NOTHING
    order = np.argsort(detections.scores, kind='stable')
    chance = isotonic_regression(detections.correct[order].astype(float)).x
    doubtful = np.flatnonzero(chance >= least_precision)
    return float(detections.scores[order][doubtful[0]]) if len(doubtful) else KEEP_NOTHING


def _precision_above(scores: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores in descending order, and the precision of all boxes down to each of them."""
    order = np.argsort(-scores, kind='stable')
    precision = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    return scores[order], precision


def _lowest_score(scores: np.ndarray, precision: np.ndarray, target: float) -> float:
    reached = np.flatnonzero(precision >= target)
    return float(scores[reached[-1]]) if len(reached) else KEEP_NOTHING
