"""Few labelled crops as a memory: a Tip-Adapter cache with the clean surface as a class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from scipy.stats import binomtest
from torch import Tensor

from mmdsym.clip.temperature import expected_calibration_error, fit_temperature

ALPHAS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
"""Weights of the memory beside the sentences, of which the best on held-out crops is taken."""

BETAS = (1.0, 3.0, 5.0, 10.0, 20.0, 50.0)
"""Sharpnesses of likeness; the larger, the more only the nearest crops count."""

_CHANCE_LEVEL = 0.01


class LabelledFeatures(NamedTuple):
    """Features of labelled crops.

    Attributes:
        features: (N, D), unit vectors.
        labels: (N,), class indices, the clean surface last.
    """

    features: Tensor
    labels: Tensor


class HeldOutQuality(NamedTuple):
    """How right a classifier is on labelled crops that it has not seen.

    Attributes:
        crops: Their number.
        accuracy: Share of right ones, in [0, 1].
        calibration_error: Expected calibration error in ten bins, in [0, 1].
        better_than_chance: Whether it beats always naming the most frequent class, at a level of
            one per cent.
    """

    crops: int
    accuracy: float
    calibration_error: float
    better_than_chance: bool


@dataclass(frozen=True)
class Prototypes:
    """A key-value cache (Tip-Adapter, arXiv 2111.03930).

    Each class's affinity is the mean over its keys, not their sum: classes differ in how many
    labelled crops they have, and that says nothing about a crop.

    Attributes:
        keys: (K, D), unit vectors.
        labels: (K,), class indices.
        num_classes: The clean surface included.
        alpha: Weight beside the text logits, from 0.
        beta: Sharpness of likeness, from 0.
    """

    keys: Tensor
    labels: Tensor
    num_classes: int
    alpha: float = 1.0
    beta: float = 5.0

    def logits(self, features: Tensor) -> Tensor:
        """Returns ``alpha`` times the classes' affinities, in [0, alpha].

        Args:
            features: (N, D), unit vectors.

        Returns:
            (N, num_classes); 0 for a class without a key.
        """
        likeness = features @ self.keys.T.to(features)
        return self.alpha * self._affinities(likeness, self.beta)

    def to(self, device: torch.device) -> Prototypes:
        """Returns the same on another device."""
        return replace(self, keys=self.keys.to(device), labels=self.labels.to(device))

    def _affinities(self, likeness: Tensor, beta: float) -> Tensor:
        weights = torch.exp(-beta * (1 - likeness))
        member = torch.nn.functional.one_hot(self.labels.to(likeness.device), self.num_classes)
        member = member.to(likeness) / member.sum(dim=0).clamp(min=1)
        return weights @ member

    def tuned(self, text_logits: Tensor | None, held_out: LabelledFeatures) -> Prototypes:
        """Returns the same keys with the alpha and beta under which held-out crops fit best.

        Args:
            text_logits: (N, num_classes) of the held-out crops; ``None`` looks at the prototypes
                alone, whose weight is then left to the temperature.
            held_out: Crops that are not among the keys.
        """
        if not len(held_out.labels):
            return self
        likeness = held_out.features @ self.keys.T
        best, best_loss = self, float('inf')
        for beta in BETAS:
            affinities = self._affinities(likeness, beta)
            for alpha in (1.0,) if text_logits is None else ALPHAS:
                logits = alpha * affinities + (0 if text_logits is None else text_logits)
                _, loss = fit_temperature(logits, held_out.labels)
                if loss < best_loss:
                    best, best_loss = replace(self, alpha=alpha, beta=beta), loss
        return best


def judge(probabilities: Tensor, labels: Tensor) -> HeldOutQuality:
    """Compares probabilities, (N, classes), with labels, (N,), of held-out crops."""
    count = len(labels)
    if not count:
        return HeldOutQuality(0, 0.0, 0.0, False)
    right = int((probabilities.argmax(dim=1) == labels).sum())
    most_frequent = int(labels.bincount().max()) / count
    p_value = binomtest(right, count, most_frequent, alternative='greater').pvalue
    error = expected_calibration_error(probabilities, labels)
    return HeldOutQuality(count, right / count, error, bool(p_value < _CHANCE_LEVEL))
