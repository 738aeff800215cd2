"""How like real defects synthetic ones are: agreement, distance of distributions, copying."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mmdsym.errors import UserError

_LEAST_FOR_KID = 2


@dataclass(frozen=True)
class KernelDistance:
    """Kernel inception distance (arXiv 1801.01401): squared, unbiased, so it may lie below 0.

    Attributes:
        mean: Over random subsets.
        std: Over random subsets.
    """

    mean: float
    std: float


def require_torchmetrics() -> None:
    """Makes sure that the package behind :func:`kernel_distance` is there.

    Raises:
        UserError: It is not installed.
    """
    if importlib.util.find_spec('torchmetrics') is None:
        raise UserError(
            'the kernel distance needs torchmetrics, which is not installed: '
            'pip install torchmetrics.'
        )


def kernel_distance(
    one: Tensor, other: Tensor, subsets: int = 100, subset_size: int = 100, seed: int = 0
) -> KernelDistance | None:
    """Measures how far two sets of features are apart.

    Args:
        one: (N, D).
        other: (M, D).
        subsets: Number of random subsets.
        subset_size: Their size; less where a set has less.
        seed: Of the subsets.

    Returns:
        ``None`` where a set has fewer than two members.

    Raises:
        UserError: torchmetrics is not installed.
    """
    require_torchmetrics()
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(subset_size, len(one), len(other))
    if size < _LEAST_FOR_KID:
        return None
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings('ignore', message='.*save all extracted features')
        torch.manual_seed(seed)
        # The features are there already: the metric's own network does nothing.
        metric = KernelInceptionDistance(nn.Identity(), subsets=subsets, subset_size=size)
        metric.update(one.double(), real=True)
        metric.update(other.double(), real=False)
        mean, std = metric.compute()
    return KernelDistance(float(mean), float(std))


def nearest_distances(queries: Tensor, training: Tensor) -> np.ndarray:
    """Returns how far each crop is from the training crop that is most like it.

    Args:
        queries: (N, D), features.
        training: (M, D), at least one.

    Returns:
        (N,), 1 - cosine similarity, in [0, 2]; 0 is a copy.
    """
    queries, training = (nn.functional.normalize(each, dim=1) for each in (queries, training))
    if not len(queries):
        return np.zeros(0)
    return (1 - (queries @ training.T).amax(dim=1)).clamp(0, 2).numpy()


@dataclass(frozen=True)
class Nearness:
    """Distances to the nearest training crop: a few copies show in the lowest percentile alone.

    Attributes:
        percentile_1: Where the nearest hundredth ends.
        percentile_10: Where the nearest tenth ends.
        median: Of all.
        mean: Of all.
    """

    percentile_1: float
    percentile_10: float
    median: float
    mean: float


def nearness(queries: Tensor, training: Tensor) -> Nearness | None:
    """Sums up :func:`nearest_distances`; ``None`` without crops on either side."""
    if not len(queries) or not len(training):
        return None
    distances = nearest_distances(queries, training)
    percentiles = np.percentile(distances, (1, 10, 50)).tolist()
    return Nearness(*percentiles, mean=float(distances.mean()))


def class_accuracy(probabilities: np.ndarray, label: int) -> float | None:
    """Returns the share of crops of one class that are recognised.

    Args:
        probabilities: (N, K), of crops of this class.
        label: Its column.

    Returns:
        In [0, 1]; ``None`` without crops.
    """
    if not len(probabilities):
        return None
    return float((probabilities.argmax(axis=1) == label).mean())
