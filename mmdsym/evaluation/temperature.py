"""Probabilities that mean what they say."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

_LOG_LIMITS = (-7.0, 7.0)


def fit_temperature(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Finds the number to divide logits by, so that their softmax fits held-out labels best.

    One crop and a bit is taken to be wrong, so that a handful of crops that are all right does not
    make the classifier infinitely sure of itself.
    ("On Calibration of Modern Neural Networks", arXiv 1706.04599.)

    Args:
        logits: (N, classes), finite.
        labels: (N,), class indices.

    Returns:
        The temperature, positive, and the mean negative log-likelihood with it; 1 and that of a
        blind guess without any label.
    """
    classes = logits.shape[1]
    if not len(logits):
        return 1.0, float(np.log(classes))
    logits = logits.double()
    doubt = 1 / (len(logits) + 2)

    def loss(log_temperature: float) -> float:
        log_probabilities = (logits / np.exp(log_temperature)).log_softmax(dim=1)
        right = log_probabilities.gather(1, labels[:, None]).mean()
        return -float((1 - doubt) * right + doubt * log_probabilities.mean())

    best = minimize_scalar(loss, bounds=_LOG_LIMITS, method='bounded')
    return float(np.exp(best.x)), float(best.fun)


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 10) -> float:
    """Returns how far confidence and accuracy differ on average, in [0, 1].

    Args:
        probabilities: (N, classes).
        labels: (N,), class indices.
        bins: Equal parts of [0, 1] in which crops of like confidence are compared.

    Returns:
        The gap of each bin, weighted by the crops in it; 0 without crops.
    """
    if not len(labels):
        return 0.0
    confidence, predicted = probabilities.double().max(dim=1)
    right = (predicted == labels).double()
    index = (confidence * bins).long().clamp(max=bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64).index_add(0, index, right - confidence)
    return float(gaps.abs().sum() / len(labels))
