"""From which score on a deployed detector's boxes are shown, chosen on the calibration images."""

from __future__ import annotations

import numpy as np

from .calibration import KEEP_NOTHING, JudgedDetections


def best_f1_thresholds(
    detections: JudgedDetections, true_boxes: np.ndarray, prior_boxes: float = 10.0
) -> np.ndarray:
    """Returns, per class, the score from which the boxes have the best F1.

    F1 is the harmonic mean of precision and recall. That of a class is drawn towards that of all
    classes as if ``prior_boxes`` more had been seen, as in
    :func:`mmdsym.evaluation.keep_thresholds`. A threshold lies halfway between the last score that
    counts and the next lower one: where few boxes were seen, a right one of another image would
    often lie just below the lowest of them.

    Args:
        detections: Judged on labelled images that did not train the detector.
        true_boxes: Number of true boxes of each class on these images, shape (num_classes,).
        prior_boxes: Strength of the common estimate, in boxes, from 0.

    Returns:
        Scores, shape (num_classes,). A class without a right detection gets that of all classes;
        without any, :data:`mmdsym.evaluation.KEEP_NOTHING`.
    """
    num_classes, total = len(true_boxes), int(true_boxes.sum())
    if not detections.correct.any():
        return np.full(num_classes, KEEP_NOTHING)
    scores, f1, halfway = _f1_above(detections.scores, detections.correct, total)
    thresholds = np.full(num_classes, halfway[f1.argmax()])
    for label in range(num_classes):
        mine = detections.labels == label
        if not detections.correct[mine].any():
            continue
        own_scores, own_f1, own_halfway = _f1_above(
            detections.scores[mine], detections.correct[mine], int(true_boxes[label])
        )
        # Each score of the class is one of all scores, so that its place is found.
        common = f1[np.searchsorted(-scores, -own_scores)]
        shrunk = true_boxes[label] * own_f1 + prior_boxes * common
        thresholds[label] = own_halfway[shrunk.argmax()]
    return thresholds


def _f1_above(
    scores: np.ndarray, correct: np.ndarray, true_boxes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct scores in descending order, F1 of all boxes down to each, and halfway to the next.

    The scores must not be empty.
    """
    order = np.argsort(-scores, kind='stable')
    ordered = scores[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # of equal scores
    f1 = 2 * np.cumsum(correct[order])[last] / (last + 1 + true_boxes)
    distinct = ordered[last]
    return distinct, f1, (distinct + np.append(distinct[1:], 0.0)) / 2
