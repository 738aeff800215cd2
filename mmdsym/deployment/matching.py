"""Whether two lists of boxes are the same, but for what rounding decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST_PIXELS = 0.5
MOST_SCORE = 1e-3
MOST_OVERLAP = 1e-3


@dataclass(frozen=True)
class Found:
    """Boxes on one image: corners (N, 4), scores (N,), labels (N,)."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Cuts:
    """Where a detector stops to report boxes; there, rounding decides.

    Attributes:
        score: Score below which boxes are dropped.
        limit: Number of boxes that are kept at most.
        overlap: IoU above which a box suppresses another one.
        class_agnostic: Whether it suppresses those of other classes as well.
    """

    score: float
    limit: int
    overlap: float
    class_agnostic: bool = False


@dataclass(frozen=True)
class Comparison:
    """How two lists of boxes differ.

    Attributes:
        images: Number of images compared.
        boxes: Number of boxes of the first list.
        pixels: Largest difference of a corner within a pair.
        score: Largest difference of a score within a pair.
        at_cut: Boxes without counterpart since they overlap by just the threshold of suppression.
        missed: What else has no counterpart, in words.
    """

    images: int
    boxes: int
    pixels: float
    score: float
    at_cut: int = 0
    missed: tuple[str, ...] = ()


def compare(expected: Found, found: Found, cuts: Cuts) -> Comparison:
    """Pairs the boxes of two lists one to one, and measures the pairs.

    Two boxes are a pair if they have one class and differ by at most ``MOST_PIXELS`` and
    ``MOST_SCORE``. Without a pair may be: a box whose score is that close to, or below, where boxes
    are cut off; one that overlaps a better one of the other list by the threshold of suppression,
    to ``MOST_OVERLAP``; and what is suppressed by such a one alone.
    """
    pixels = np.abs(expected.boxes[:, None] - found.boxes[None]).max(axis=-1)
    scores = np.abs(expected.scores[:, None] - found.scores[None])
    fits = (pixels <= MOST_PIXELS) & (scores <= MOST_SCORE)
    fits &= expected.labels[:, None] == found.labels[None]
    pairs = _pairs(np.where(fits, pixels + scores, np.inf))
    sides = expected, found
    left = {
        (side, index)
        for side, own in enumerate(sides)
        for index in _clear_of_score_cut(own, cuts)
        if index not in {pair[side] for pair in pairs}
    }
    excused = _decided_by_rounding(sides, left, cuts)
    worst = [max((table[pair] for pair in pairs), default=0.0) for table in (pixels, scores)]
    missed = [_in_words(sides, *place) for place in sorted(left - excused)]
    return Comparison(1, len(expected.scores), *map(float, worst), len(excused), tuple(missed))


def merged(parts: Sequence[Comparison]) -> Comparison:
    """Joins the comparisons of several images."""
    return Comparison(
        images=len(parts),
        boxes=sum(part.boxes for part in parts),
        pixels=max(part.pixels for part in parts),
        score=max(part.score for part in parts),
        at_cut=sum(part.at_cut for part in parts),
        missed=tuple(name for part in parts for name in part.missed),
    )


def _pairs(cost: np.ndarray) -> list[tuple[int, int]]:
    """Pairs rows and columns of finite cost, the cheapest first."""
    pairs, rows, columns = [], set(), set()
    for place in np.argsort(cost, axis=None, kind='stable'):
        row, column = (int(i) for i in np.unravel_index(place, cost.shape))
        if not np.isfinite(cost[row, column]):
            break
        if row not in rows and column not in columns:
            pairs.append((row, column))
            rows.add(row)
            columns.add(column)
    return pairs


def _clear_of_score_cut(own: Found, cuts: Cuts) -> list[int]:
    lowest = cuts.score
    if len(own.scores) >= cuts.limit:
        lowest = max(lowest, own.scores.min())
    return np.flatnonzero(own.scores > lowest + MOST_SCORE).tolist()


def _decided_by_rounding(
    sides: tuple[Found, Found], left: set[tuple[int, int]], cuts: Cuts
) -> set[tuple[int, int]]:
    """Picks the boxes (side, index) whose suppression hangs on the last digits of an IoU."""
    excused: set[tuple[int, int]] = set()
    while True:
        further = {
            (side, index)
            for side, index in left - excused
            if _is_at_overlap_cut(sides, side, index, excused, cuts)
        }
        if not further:
            return excused
        excused |= further


def _is_at_overlap_cut(
    sides: tuple[Found, Found], side: int, index: int, excused: set, cuts: Cuts
) -> bool:
    own, other = sides[side], sides[1 - side]
    overlaps = _overlaps(own.boxes[index], other.boxes)
    may = other.scores >= own.scores[index] - MOST_SCORE
    if not cuts.class_agnostic:
        may &= other.labels == own.labels[index]
    by_rounding = np.isin(np.arange(len(may)), [i for s, i in excused if s == 1 - side])
    near = np.abs(overlaps - cuts.overlap) <= MOST_OVERLAP
    return bool((may & (near | (by_rounding & (overlaps > cuts.overlap)))).any())


def _overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the IoU of a box with each of others (N, 4)."""
    corner = np.maximum(box[:2], others[:, :2])
    shared = (np.minimum(box[2:], others[:, 2:]) - corner).clip(0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return shared / np.maximum(areas - shared, 1e-9)


def _in_words(sides: tuple[Found, Found], side: int, index: int) -> str:
    own, lacking = sides[side], ('ONNX', 'PyTorch')[side]
    corners = [round(float(value), 1) for value in own.boxes[index]]
    return (
        f'{lacking} lacks class {own.labels[index]} at {corners} with score {own.scores[index]:.4f}'
    )
