"""A linear classifier on fixed features, with its regularisation found by cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor

WEIGHT_DECAYS = (1e-1, 1e-2, 1e-3, 1e-4)
"""Strengths of the L2 penalty that are tried, strongest first."""


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """Softmax regression on standardised features.

    Attributes:
        centre: (D,), subtracted from the features.
        scale: (D,), that they are divided by.
        weight: (K, D).
        bias: (K,); minus infinity for a class without an example.
    """

    centre: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def probabilities(self, features: Tensor) -> Tensor:
        """Returns (N, K), rows summing to 1, for features (N, D)."""
        standard = (features - self.centre) / self.scale
        return F.linear(standard, self.weight, self.bias).softmax(dim=1)


@dataclass(frozen=True, eq=False)
class FittedProbe:
    """A probe and what probes that had not seen the examples said of them.

    Attributes:
        probe: Fitted on all examples.
        held_out: (N, K), probabilities of each example by a probe fitted without its group.
    """

    probe: LinearProbe
    held_out: Tensor


def fit_probe(
    features: Tensor, labels: Tensor, num_classes: int, weight_decay: float
) -> LinearProbe:
    """Fits softmax regression with an L2 penalty by L-BFGS.

    Args:
        features: (N, D), float32, at least one row.
        labels: (N,), in 0..num_classes - 1.
        num_classes: K.
        weight_decay: Of the squared weights, in units of the mean loss.
    """
    centre, scale = features.mean(dim=0), features.std(dim=0, unbiased=False) + 1e-3
    standard = (features - centre) / scale
    known = torch.bincount(labels, minlength=num_classes) > 0
    # Unknown classes stay out of the competition: their bias would wander off without end.
    barred = torch.where(known, 0.0, -torch.inf)
    weight = torch.zeros(num_classes, features.shape[1], requires_grad=True)
    bias = torch.zeros(num_classes, requires_grad=True)
    # Scaled, so that the penalty means the same for any number of features.
    length = features.shape[1] ** 0.5
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn='strong_wolfe')

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = F.linear(standard, weight / length, bias + barred)
        loss = F.cross_entropy(logits, labels) + weight_decay * weight.square().sum() / 2
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return LinearProbe(centre, scale, (weight / length).detach(), (bias + barred).detach())


def fit_cross_validated(
    features: Tensor,
    labels: Tensor,
    groups: np.ndarray,
    num_classes: int,
    folds: int = 4,
    weight_decays: Sequence[float] = WEIGHT_DECAYS,
    seed: int = 0,
) -> FittedProbe:
    """Fits a probe with the penalty under which held-out examples are most probable.

    Args:
        features: (N, D), float32.
        labels: (N,), in 0..num_classes - 1.
        groups: (N,), what must not be torn apart: the image of each example.
        num_classes: K.
        folds: Number of parts, each held out once; at most one for each group.
        weight_decays: The penalties to try.
        seed: Of the division into parts.
    """
    fold_of = _assign_folds(groups, folds, seed)
    outcomes = []
    for weight_decay in weight_decays:
        held_out = torch.full((len(labels), num_classes), 1 / num_classes)
        for fold in np.unique(fold_of):
            out = torch.from_numpy(fold_of == fold)
            if out.all():
                continue  # a single group: nothing can be held out
            probe = fit_probe(features[~out], labels[~out], num_classes, weight_decay)
            held_out[out] = probe.probabilities(features[out])
        own = held_out.gather(1, labels[:, None])
        outcomes.append((float(own.clamp(min=1e-6).log().mean()), weight_decay, held_out))
    _, weight_decay, held_out = max(outcomes, key=lambda outcome: outcome[0])
    return FittedProbe(fit_probe(features, labels, num_classes, weight_decay), held_out)


def _assign_folds(groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    names, position = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    return (order % folds)[position]
