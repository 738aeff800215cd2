"""Boxes that were found right or wrong, in folds of whole images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .logistic import LinearModel, fit_linear, log_loss, recalibrate, sigmoid


@dataclass(frozen=True)
class JudgedEvidence:
    """Boxes with what speaks for them, each found right or wrong.

    Attributes:
        evidence: (N, K).
        labels: Class indices, (N,).
        correct: (N,), bool.
    """

    evidence: np.ndarray
    labels: np.ndarray
    correct: np.ndarray


class CrossValidation:
    """Fits on all folds but one, in turn, and judges by the one left out.

    Args:
        boxes: Of labelled images that did not train the teacher.
        fold: Fold of each box, (N,).
        num_classes: Number of classes.
        offset_strength: L2 strength of the classes' offsets.
        further: Boxes that help to fit but are never judged by; slope and bias are then corrected
            on ``boxes``.
    """

    def __init__(
        self,
        boxes: JudgedEvidence,
        fold: np.ndarray,
        num_classes: int,
        offset_strength: float,
        further: JudgedEvidence | None = None,
    ) -> None:
        self.boxes = boxes
        self.fold = fold
        self.num_classes = num_classes
        self.offset_strength = offset_strength
        self.further = further

    def loss(self, columns: Sequence[int], strength: float) -> float:
        """Returns the log-loss of the boxes left out, in nats a box.

        Args:
            columns: Of the evidence, the prior first.
            strength: L2 strength.
        """
        return log_loss(self.out_of_fold(columns, strength), self.boxes.correct)

    def out_of_fold(self, columns: Sequence[int], strength: float) -> np.ndarray:
        """Returns the probability of each box by the fit that did not see its image, (N,)."""
        result = np.zeros(len(self.fold))
        for fold in np.unique(self.fold):
            held_out = self.fold == fold
            model = self.fit(columns, strength, ~held_out)
            odds = model.odds(
                self.boxes.evidence[held_out][:, columns], self.boxes.labels[held_out]
            )
            result[held_out] = sigmoid(odds)
        return result

    def fit(
        self, columns: Sequence[int], strength: float, chosen: np.ndarray | None = None
    ) -> LinearModel:
        """Fits the chosen boxes, by default all."""
        mine = self.boxes
        chosen = np.ones(len(self.fold), dtype=bool) if chosen is None else chosen
        evidence = mine.evidence[chosen][:, columns]
        labels, correct = mine.labels[chosen], mine.correct[chosen]
        settings = (self.num_classes, strength, self.offset_strength)
        if self.further is None:
            return fit_linear(evidence, labels, correct, *settings)
        model = fit_linear(
            np.concatenate([evidence, self.further.evidence[:, columns]]),
            np.concatenate([labels, self.further.labels]),
            np.concatenate([correct, self.further.correct]),
            *settings,
        )
        return recalibrate(model, evidence, labels, correct)


def fold_of(image_ids: np.ndarray, folds: int) -> np.ndarray:
    """Deals images to folds in turn, in the order of their ids."""
    _, rank = np.unique(image_ids, return_inverse=True)
    return rank.reshape(-1) % folds
