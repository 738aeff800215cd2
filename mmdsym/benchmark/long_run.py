"""Whether a long training keeps its pace, its memory and its open files."""

from __future__ import annotations

import multiprocessing
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.runner import Runner

MAX_GROWTH = 0.02
MAX_SLOWDOWN = 0.05
_TICKS = os.sysconf('SC_CLK_TCK') if hasattr(os, 'sysconf') else 100
_PAGE = os.sysconf('SC_PAGE_SIZE') if hasattr(os, 'sysconf') else 4096


@dataclass(frozen=True)
class Sample:
    """What a training and the processes that load its images hold at one moment.

    Attributes:
        iteration: Iterations done.
        memory_mib: Resident memory of all processes together, in MiB.
        files: Their open file handles.
        processor_seconds: Processor time of all of them so far, without validations.
    """

    iteration: int
    memory_mib: float
    files: int
    processor_seconds: float


class ResourceHook(Hook):
    """Takes a sample every so many iterations; needs Linux's ``/proc``.

    Args:
        interval: Iterations between two samples.
    """

    priority = 'LOWEST'

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval
        self.samples: list[Sample] = []
        self._validating = 0.0
        self._validation_began = 0.0

    def before_val(self, runner: Runner) -> None:
        """Stops the clock."""
        self._validation_began = processor_seconds(processes())

    def after_val(self, runner: Runner) -> None:
        """Lets the clock go on."""
        self._validating += processor_seconds(processes()) - self._validation_began

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Takes a sample where one is due."""
        if self.every_n_inner_iters(batch_idx, self.interval):
            found = processes()
            self.samples.append(
                Sample(
                    runner.iter + 1,
                    round(memory_mib(found), 1),
                    open_files(found),
                    round(processor_seconds(found) - self._validating, 2),
                )
            )


def processes() -> list[int]:
    """Returns the numbers of this process and of those that load images for it."""
    return [os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid)]


def memory_mib(numbers: Sequence[int]) -> float:
    """Returns the resident memory of processes in MiB; pages that they share count for each."""
    pages = sum(int(Path(f'/proc/{n}/statm').read_text().split()[1]) for n in numbers)
    return pages * _PAGE / 2**20


def open_files(numbers: Sequence[int]) -> int:
    """Returns how many file handles processes have open."""
    return sum(len(os.listdir(f'/proc/{n}/fd')) for n in numbers)


def processor_seconds(numbers: Sequence[int]) -> float:
    """Returns the processor time that processes have used."""
    ticks = 0
    for number in numbers:
        # The name, in brackets, may hold blanks.
        fields = Path(f'/proc/{number}/stat').read_text().rpartition(')')[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def judge(samples: Sequence[Sample], warm_up: int) -> dict:
    """Compares the first fifth of a run after its warm-up with the last.

    Medians count, so that a checkpoint or a calibration in one of the intervals does not.

    Args:
        samples: In order, at least ten of them after the warm-up.
        warm_up: First iteration that counts.

    Returns:
        The numbers compared, and ``memory_is_flat``, ``files_are_constant``, ``pace_is_kept``.

    Raises:
        ValueError: There are too few samples.
    """
    samples = [sample for sample in samples if sample.iteration >= warm_up]
    if len(samples) < 10:
        raise ValueError(f'{len(samples)} samples after the warm-up are too few: 10 are needed')
    fifth = len(samples) // 5
    memory = [
        statistics.median(sample.memory_mib for sample in part)
        for part in (samples[:fifth], samples[-fifth:])
    ]
    pace = [
        (later.processor_seconds - sooner.processor_seconds) / (later.iteration - sooner.iteration)
        for sooner, later in zip(samples, samples[1:], strict=False)
    ]
    seconds = [statistics.median(pace[:fifth]), statistics.median(pace[-fifth:])]
    files = [
        statistics.median(s.files for s in part) for part in (samples[:fifth], samples[-fifth:])
    ]
    growth, slowdown = memory[1] / memory[0] - 1, seconds[1] / seconds[0] - 1
    return dict(
        memory_mib=memory,
        memory_growth=round(growth, 4),
        memory_is_flat=growth <= MAX_GROWTH,
        files=files,
        files_are_constant=files[0] == files[1],
        processor_seconds_per_iteration=[round(value, 4) for value in seconds],
        slowdown=round(slowdown, 4),
        pace_is_kept=slowdown <= MAX_SLOWDOWN,
    )


def as_rows(samples: Sequence[Sample]) -> list[dict]:
    """Returns the samples as plain rows."""
    return [asdict(sample) for sample in samples]
