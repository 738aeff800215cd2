"""How far images lie from those that are labelled, in the detector's own features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

_LARGE_SHARE = 0.95
_MOST_PAIRS = 500


class FeatureSpace:
    """Measures distances between images.

    What all images share says nothing about any of them, so that features are centred first.

    Args:
        features: (N, D), of the images to choose from.
        labelled: (M, D), of the labelled images; M may be 0.

    Attributes:
        scale: A distance that only one image in twenty has from the labelled ones (without any:
            that pairs of images usually have); novelty is counted in units of it.
    """

    def __init__(self, features: Tensor, labelled: Tensor) -> None:
        self._centre = torch.cat([features, labelled]).mean(dim=0)
        self._features = self._centred(features)
        self.from_labelled = features.new_full((len(features),), torch.inf)
        if len(labelled):
            likeness = self._features @ self._centred(labelled).T
            self.from_labelled = ((1 - likeness) / 2).clamp(min=0).amin(dim=1)
            self.scale = float(self.from_labelled.quantile(_LARGE_SHARE))
        else:
            some = self._features[:_MOST_PAIRS]
            self.scale = float(((1 - some @ some.T) / 2).median())
        # Images that are all alike have no scale: nothing is new.
        self.scale = max(self.scale, 1e-6)

    def distance_to(self, index: int) -> Tensor:
        """Returns the distance of each image to one of them, (N,) in [0, 1]."""
        return ((1 - self._features @ self._features[index]) / 2).clamp(min=0)

    def novelty(self, distance: Tensor) -> Tensor:
        """Turns distances into novelty: 0 for what is known already, 1 for what is very new."""
        return (distance / self.scale).clamp(max=1)

    def _centred(self, features: Tensor) -> Tensor:
        return normalize(features - self._centre, dim=1)
