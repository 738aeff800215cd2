"""Whether two sets of boxes say the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mmdsym.datasets.preparation.records import Box

TOLERANCE = 1.0
"""Pixels by which edges may differ: formats round, people do not mean less than a pixel."""


def same_boxes(first: Sequence[Box], second: Sequence[Box]) -> bool:
    """Says whether each box has its twin of the same class in the other set."""
    if len(first) != len(second):
        return False
    left = list(second)
    for box in first:
        # The closest twin, so that boxes that nearly coincide are not mixed up.
        twins = [other for other in left if other.label == box.label]
        twin = min(twins, key=lambda other: _distance(box, other), default=None)
        if twin is None or _distance(box, twin) > TOLERANCE:
            return False
        left.remove(twin)
    return True


def describe_change(before: Sequence[Box], now: Sequence[Box]) -> str:
    """The difference in a few words, such as `2 dent, 1 crack before, 1 dent now`."""
    old, new = _count(before), _count(now)
    return f'{old} before, {new} now' if old != new else f'{old} before and now, at other places'


def _count(boxes: Sequence[Box]) -> str:
    counts = Counter(box.label for box in boxes)
    return ', '.join(f'{count} {label}' for label, count in sorted(counts.items())) or 'no box'


def _distance(a: Box, b: Box) -> float:
    """Largest distance of two edges, in pixels."""
    return max(abs(a.x1 - b.x1), abs(a.y1 - b.y1), abs(a.x2 - b.x2), abs(a.y2 - b.y2))
