"""One pass of backbone and neck for the images of several branches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from mmdet.structures import SampleList
from torch import Tensor, nn
from torch.nn.functional import pad


def pad_alike(batches: Sequence[Tensor], samples: Sequence[SampleList]) -> list[Tensor]:
    """Pads the batches of several branches at the bottom and on the right to one size.

    The samples are told, as MMDetection's own padding does: detectors with attention mask what was
    added.

    Args:
        batches: Normalised images, (N, C, H, W) each, of any sizes.
        samples: Their data samples.

    Returns:
        The padded batches.
    """
    height = max(images.shape[-2] for images in batches)
    width = max(images.shape[-1] for images in batches)
    padded = []
    for images, of_branch in zip(batches, samples, strict=True):
        missing = width - images.shape[-1], height - images.shape[-2]
        padded.append(pad(images, (0, missing[0], 0, missing[1])) if any(missing) else images)
        for sample in of_branch:
            sample.set_metainfo(dict(batch_input_shape=(height, width)))
    return padded


def joint_features(detector: nn.Module, batches: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """Extracts the features of several batches in one pass, and tells them apart again.

    BatchNorm then sees all images of the step at once, as in a training without branches. A pass
    of its own for two synthetic images would normalise them by the statistics of two images, and
    the running statistics, with which the detector is tested, would follow whatever passed last.

    Args:
        detector: Any MMDetection detector.
        batches: Normalised images of one size, (N, C, H, W) each.

    Returns:
        For each batch its feature maps.
    """
    sizes = [len(images) for images in batches]
    maps = detector.extract_feat(torch.cat(list(batches)))
    by_map = [feature.split(sizes) for feature in maps]
    return list(zip(*by_map, strict=True))


@contextmanager
def features_given(detector: nn.Module, features: tuple[Tensor, ...]) -> Iterator[None]:
    """Lets the detector use these features, whatever images it gets, while the context lasts.

    Args:
        detector: Any MMDetection detector; all of them get features from ``extract_feat``.
        features: Of the images that its loss will be given.
    """
    detector.extract_feat = lambda batch_inputs: features
    try:
        yield
    finally:
        del detector.extract_feat
