"""Fits a fusion on the calibration images of all ranks together, and asks it of many at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from mmengine.dist import all_gather_object, get_rank

from mmdsym.datasets.preparation.tiles import image_of

from .fusion import Fusion
from .judged_boxes import JudgedEvidence


class ImageRows(NamedTuple):
    """The judged boxes of one image.

    Attributes:
        evidence: (N, K).
        labels: Class indices, (N,).
        correct: (N,), bool.
        image: Its path.
    """

    evidence: np.ndarray
    labels: np.ndarray
    correct: np.ndarray
    image: str


def fit_together(
    fusion: Fusion, images: list[ImageRows], further: JudgedEvidence | None = None
) -> list[np.ndarray]:
    """Lets all ranks learn the same from the images of all of them.

    Args:
        fusion: To fit.
        images: Of this rank; may be empty.
        further: See :meth:`mmdsym.clip.Fusion.fit`; the same on all ranks.

    Returns:
        The out-of-fold probabilities of the boxes of each image of this rank.
    """
    parts = all_gather_object(images)
    everyone = [image for part in parts for image in part]
    if not everyone:
        return []
    boxes = concatenate(everyone)
    # Tiles of an image overlap: a defect that two of them show must not judge itself.
    names = [image_of(str(image.image)) for image in everyone]
    owners = np.repeat(names, [len(image.labels) for image in everyone])
    probabilities = fusion.fit(boxes.evidence, boxes.labels, boxes.correct, owners, further)
    first = sum(len(image.labels) for part in parts[: get_rank()] for image in part)
    counts = [len(image.labels) for image in images]
    mine = probabilities[first : first + sum(counts)]
    return np.split(mine, np.cumsum(counts))[:-1]


def fuse_together(
    fusion: Fusion, evidence: Sequence[np.ndarray], labels: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Returns the probabilities of the boxes of some images, which a fusion gives in one go.

    Args:
        fusion: Fitted or not.
        evidence: (N, K) for each image.
        labels: Class indices, (N,) each.
    """
    if not evidence:
        return []
    fused = fusion(np.concatenate(evidence), np.concatenate(labels))
    return np.split(fused, np.cumsum([len(rows) for rows in evidence])[:-1])


def concatenate(images: list[ImageRows]) -> JudgedEvidence:
    """Returns the boxes of several images as one."""
    return JudgedEvidence(
        np.concatenate([image.evidence for image in images]),
        np.concatenate([image.labels for image in images]),
        np.concatenate([image.correct for image in images]),
    )
