"""Times steps that take turns, so that a machine's moods hit all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch


class StepTime(NamedTuple):
    """What one step took.

    Attributes:
        wall: Seconds on the clock.
        processor: Seconds of this process on all cores; on a machine that others use, and with one
            thread, the better measure.
    """

    wall: float
    processor: float


def measure_in_turn(
    steps: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, list[StepTime]]:
    """Runs all steps in turn, once to warm up and then ``rounds`` times.

    Every other round goes backwards: what follows a heavy step finds other caches.

    Args:
        steps: Name to a function that does the step once.
        rounds: Measurements of each step, at least 1.

    Returns:
        Name to the measured times, in order.
    """
    times: dict[str, list[StepTime]] = {name: [] for name in steps}
    names = list(steps)
    for turn in range(rounds + 1):
        for name in names if turn % 2 else reversed(names):
            spent = time_once(steps[name])
            if turn:
                times[name].append(spent)
    return times


def time_once(step: Callable[[], object]) -> StepTime:
    """Returns what one call took, with everything that it started on a GPU."""
    _finish_on_gpu()
    wall, processor = time.perf_counter(), time.process_time()
    step()
    _finish_on_gpu()
    return StepTime(time.perf_counter() - wall, time.process_time() - processor)


def _finish_on_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def median(times: list[StepTime]) -> StepTime:
    """Returns the medians of both measures."""
    return StepTime(*(statistics.median(values) for values in zip(*times, strict=True)))


def median_ratio(times: list[StepTime], reference: list[StepTime]) -> StepTime:
    """Returns the median over the rounds of each measure's ratio to the reference.

    Args:
        times: One for each round.
        reference: Of the same rounds.
    """
    ratios = [
        StepTime(one.wall / other.wall, one.processor / max(1e-9, other.processor))
        for one, other in zip(times, reference, strict=True)
    ]
    return median(ratios)
