"""Regularised logistic regression on standardised columns, and what it is judged by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LARGEST_Z = 5.0
"""Standardised evidence is cut here, so that no odd box leaves the range that was fitted."""

_SLOPE_STRENGTH = 10.0
_FIXED = 1e9


@dataclass(frozen=True)
class LinearModel:
    """Log-odds that are linear in standardised columns; the first is the teacher's score.

    Attributes:
        mean, spread: Of the columns, (K,).
        weights: Of the standardised columns, (K,); the first is never negative.
        offsets: Of the classes, (num_classes,).
        bias: The rest.
    """

    mean: np.ndarray
    spread: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    bias: float

    def standardised(self, values: np.ndarray) -> np.ndarray:
        """Returns columns of mean 0 and spread 1, cut at :data:`LARGEST_Z`.

        The teacher's score is left uncut: a better one is never worth less.
        """
        z = (values - self.mean) / self.spread
        z[:, 1:] = z[:, 1:].clip(-LARGEST_Z, LARGEST_Z)
        return z

    def odds(self, values: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Returns log-odds, (N,), of boxes with columns (N, K) and class indices (N,)."""
        return self.standardised(values) @ self.weights + self.offsets[labels] + self.bias


def fit_linear(
    values: np.ndarray,
    labels: np.ndarray,
    correct: np.ndarray,
    num_classes: int,
    strength: float,
    offset_strength: float,
) -> LinearModel:
    """Fits boxes.

    Args:
        values: (N, K), the log-odds of the teacher's score first.
        labels: (N,), class indices.
        correct: (N,), bool.
        num_classes: Number of classes.
        strength: L2 strength of all columns but the teacher's score, in units of boxes.
        offset_strength: L2 strength of the classes' offsets.
    """
    count = values.shape[1]
    start = _standardisation(values, num_classes)
    z = start.standardised(values)
    one_hot = np.eye(num_classes)[labels]
    design = np.concatenate([z, one_hot, np.ones((len(z), 1))], axis=1)
    # The teacher's score is hardly held back, the intercept not at all.
    penalty = np.concatenate(
        [
            [min(1.0, strength)],
            np.full(count - 1, strength),
            np.full(num_classes, offset_strength),
            [1e-6],
        ]
    )
    solution = fit_logistic(design, correct, penalty)
    if solution[0] < 0:
        penalty[0] = _FIXED
        solution = fit_logistic(design, correct, penalty)
        solution[0] = 0.0
    return LinearModel(
        start.mean, start.spread, solution[:count], solution[count:-1], float(solution[-1])
    )


def recalibrate(
    model: LinearModel, values: np.ndarray, labels: np.ndarray, correct: np.ndarray
) -> LinearModel:
    """Corrects slope and bias of a model.

    Args:
        model: Over K columns.
        values: (N, K).
        labels: (N,), class indices.
        correct: (N,), bool.
    """
    known = model.odds(values, labels)
    design = np.stack([known, np.ones(len(known))], axis=1)
    change, bias = fit_logistic(design, correct, np.array([_SLOPE_STRENGTH, 1e-6]), known)
    if change < -1:
        # Boxes that the model likes better are never worth less.
        flat = fit_logistic(design[:, 1:], correct, np.array([1e-6]))
        change, bias = -1.0, flat[0]
    slope = 1 + change
    return LinearModel(
        model.mean,
        model.spread,
        model.weights * slope,
        model.offsets * slope,
        float(model.bias * slope + bias),
    )


def fit_logistic(
    design: np.ndarray,
    correct: np.ndarray,
    penalty: np.ndarray,
    known: np.ndarray | float = 0.0,
    steps: int = 50,
) -> np.ndarray:
    """Minimises log-loss plus ``penalty / 2`` times the squared weights, by Newton's method.

    Args:
        design: (N, K).
        correct: (N,), bool.
        penalty: (K,), positive.
        known: (N,), log-odds to add to.
        steps: Most steps; about eight are needed.

    Returns:
        Weights, (K,).
    """
    target = correct.astype(np.float64)
    weights = np.zeros(design.shape[1])

    def objective(candidate: np.ndarray) -> float:
        odds = known + design @ candidate
        return float((np.logaddexp(0, odds) - target * odds).sum() + penalty @ candidate**2 / 2)

    value = objective(weights)
    for _ in range(steps):
        probability = sigmoid(known + design @ weights)
        gradient = design.T @ (probability - target) + penalty * weights
        curvature = (design * (probability * (1 - probability))[:, None]).T @ design
        step = np.linalg.solve(curvature + np.diag(penalty), gradient)
        size = 1.0
        while size > 1e-4 and objective(weights - size * step) > value:
            size /= 2
        weights = weights - size * step
        previous, value = value, objective(weights)
        if previous - value < 1e-9 * max(1.0, abs(previous)):
            break
    return weights


def log_loss(probabilities: np.ndarray, correct: np.ndarray) -> float:
    """Mean negative log-likelihood in nats, of probabilities cut to [1e-6, 1 - 1e-6]."""
    p = np.clip(probabilities, 1e-6, 1 - 1e-6)
    return float(-np.where(correct, np.log(p), np.log1p(-p)).mean())


def average_precision(scores: np.ndarray, correct: np.ndarray) -> float:
    """Mean precision at the right boxes, best score first; NaN without any right box."""
    order = np.argsort(-scores, kind='stable')
    right = np.asarray(correct, dtype=bool)[order]
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    return float(precision[right].mean()) if right.any() else float('nan')


def sigmoid(odds: np.ndarray) -> np.ndarray:
    """Returns probabilities, strictly between 0 and 1."""
    return 1 / (1 + np.exp(-np.clip(odds, -60, 60)))


def _standardisation(values: np.ndarray, num_classes: int) -> LinearModel:
    """A model without weights that knows mean and spread of the columns."""
    mean = values.mean(axis=0) if len(values) else np.zeros(values.shape[1])
    spread = values.std(axis=0) if len(values) else np.ones(values.shape[1])
    # A column that never varies says nothing, whatever it holds later.
    spread = np.where(spread > 1e-6, spread, 1.0)
    return LinearModel(mean, spread, np.zeros(values.shape[1]), np.zeros(num_classes), 0.0)
