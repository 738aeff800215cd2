"""Small, medium and large, measured by the labelled boxes of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

BUCKETS = ('small', 'medium', 'large')


class SizeDistribution:
    """Sizes of new boxes of one class.

    The size of a box is the root of its area, in pixels. The borders between small, medium and
    large are quantiles of the labelled sizes; how often each is drawn is declared. Within a
    bucket sizes are uniform in their logarithm, so that doubling is as likely everywhere.

    Args:
        sizes: (N,), sizes of the labelled boxes, N from 1.
        shares: Bucket name to its share, from 0, not all 0; they need not add up to 1.
        quantiles: Where small ends and where large begins, in [0, 1].
    """

    def __init__(
        self,
        sizes: Sequence[float] | np.ndarray,
        shares: Mapping[str, float],
        quantiles: tuple[float, float] = (1 / 3, 2 / 3),
    ) -> None:
        sizes = np.asarray(sizes, dtype=float)
        inner = np.quantile(sizes, quantiles)
        self.borders = np.array([sizes.min(), *inner, sizes.max()])
        weights = np.array([shares.get(name, 0.0) for name in BUCKETS], dtype=float)
        self.shares = weights / weights.sum()

    def bucket_of(self, size: float) -> int:
        """Returns the index in :data:`BUCKETS` of a size; sizes on a border are the smaller."""
        return int(np.searchsorted(self.borders[1:3], size, side='left'))

    def draw_bucket(self, generator: np.random.Generator) -> int:
        """Draws a bucket by the declared shares."""
        return int(generator.choice(len(BUCKETS), p=self.shares))

    def draw_size(self, generator: np.random.Generator, bucket: int) -> float:
        """Draws a size inside a bucket."""
        low, high = np.log(self.borders[bucket : bucket + 2])
        return float(np.exp(generator.uniform(low, high)))


def box_sizes(boxes: np.ndarray) -> np.ndarray:
    """Returns the roots of the areas of boxes (N, 4): (N,), in pixels."""
    return np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def aspect_ratios(boxes: np.ndarray) -> np.ndarray:
    """Returns width over height of boxes (N, 4): (N,)."""
    return (boxes[:, 2] - boxes[:, 0]) / (boxes[:, 3] - boxes[:, 1])
