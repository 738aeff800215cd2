"""Few labelled crops as a memory: a Tip-Adapter cache with the clean surface as a class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmdsym.evaluation.temperature import fit_temperature

ALPHAS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""Weights of the memory beside the sentences, of which the best on held-out crops is taken."""

BETAS = (1.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0)
"""Sharpnesses of likeness; the larger, the more only the nearest crops count."""


class LabelledFeatures(NamedTuple):
    """Features of labelled crops.

    Attributes:
        features: (N, D), unit vectors.
        labels: (N,), class indices, the clean surface last.
    """

    features: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Prototypes:
    """A key-value cache (Tip-Adapter, arXiv 2111.03930).

    In two points it differs from the paper, since both made held-out crops of NEU-DET fit better:
    likeness is that of features with the keys' mean taken off (what all crops share tells nothing),
    and a class's logit is the logarithm of its affinities' sum, so that the softmax of the
    prototypes alone is each class's share of all affinity.

    Attributes:
        keys: (K, D), unit vectors, from one.
        labels: (K,), class indices.
        num_classes: The clean surface included.
        alpha: Weight beside the text logits, from 0.
        beta: Sharpness of likeness, from 0.
    """

    keys: Tensor
    labels: Tensor
    num_classes: int
    alpha: float = 1.0
    beta: float = 20.0

    def logits(self, features: Tensor) -> Tensor:
        """Returns ``alpha`` times the logarithm of the classes' affinities.

        Args:
            features: (N, D), unit vectors.

        Returns:
            (N, num_classes), finite; a class without a key gets the mean of the others.
        """
        return self.alpha * self._log_affinities(self._likeness(features), self.beta)

    def to(self, device: torch.device) -> Prototypes:
        """Returns the same on another device."""
        return replace(self, keys=self.keys.to(device), labels=self.labels.to(device))

    def _likeness(self, features: Tensor) -> Tensor:
        centre, keys = self._centred
        features = normalize(features - centre.to(features), dim=1)
        return features @ keys.to(features).T

    @cached_property
    def _centred(self) -> tuple[Tensor, Tensor]:
        """The keys' mean, and what is left of them without it, as unit vectors."""
        centre = self.keys.mean(dim=0)
        return centre, normalize(self.keys - centre, dim=1)

    def _log_affinities(self, likeness: Tensor, beta: float) -> Tensor:
        exponents = beta * (likeness - 1)
        labels = self.labels.to(likeness.device)
        known = labels.bincount(minlength=self.num_classes) > 0
        found = [
            exponents[:, labels == label].logsumexp(dim=1)
            for label in known.nonzero().flatten().tolist()
        ]
        result = torch.stack(found).mean(dim=0)[:, None].repeat(1, self.num_classes)
        result[:, known] = torch.stack(found, dim=1)
        return result

    def tuned(self, text_logits: Tensor | None, held_out: LabelledFeatures) -> Prototypes:
        """Returns the same keys with the alpha and beta under which held-out crops fit best.

        Args:
            text_logits: (N, num_classes) of the held-out crops; ``None`` looks at the prototypes
                alone, whose weight is then left to the temperature.
            held_out: Crops that are not among the keys.
        """
        if not len(held_out.labels):
            return self
        likeness = self._likeness(held_out.features)
        best, best_loss = self, float('inf')
        for beta in BETAS:
            affinities = self._log_affinities(likeness, beta)
            for alpha in (1.0,) if text_logits is None else ALPHAS:
                logits = alpha * affinities + (0 if text_logits is None else text_logits)
                _, loss = fit_temperature(logits, held_out.labels)
                if loss < best_loss:
                    best, best_loss = replace(self, alpha=alpha, beta=beta), loss
        return best
