"""Runs of a benchmark, side by side where there are several devices."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from .execution import RunFailed, stop_all
from .run_folder import RunFolder

Environment = Mapping[str, str]


def places(devices: Sequence[str] | None, parallel: int) -> list[Environment]:
    """Returns the environment of each run that may be in progress at a time.

    Args:
        devices: GPUs; ``None`` for the CPU.
        parallel: Runs side by side on each GPU, or on the CPU; they share its threads.
    """
    side_by_side = parallel * len(devices or [None])
    if devices is None and parallel == 1:
        # Whatever the user has set stands.
        return [{}]
    threads = max(1, (os.cpu_count() or 1) // side_by_side)
    shared = {'OMP_NUM_THREADS': str(threads)} if parallel > 1 else {}
    # Round by round, so that few runs spread over all GPUs.
    return [
        {**shared, **({} if device is None else {'CUDA_VISIBLE_DEVICES': device})}
        for _ in range(parallel)
        for device in devices or [None]
    ]


def run_all(
    folders: Sequence[RunFolder],
    environments: Sequence[Environment],
    execute: Callable[[RunFolder, Environment], None],
    tell: Callable[[str], None] = print,
) -> list[str]:
    """Does all that is not finished; a run that fails does not keep the others from theirs.

    Args:
        folders: All runs of the benchmark.
        environments: See :func:`places`; as many runs go side by side.
        execute: Does one run.
        tell: Gets one line for each run that begins or fails.

    Returns:
        What failed, one sentence each.
    """
    free: queue.Queue[Environment] = queue.Queue()
    for environment in environments:
        free.put(environment)
    failures: list[str] = []
    stopped = threading.Event()

    def work(number: int, folder: RunFolder) -> None:
        if stopped.is_set():
            return
        environment = free.get()
        try:
            tell(
                f'Run {number} of {len(folders)}: {folder.run.name} ({folder.state}); '
                f'{time_left(folders, len(environments))}.'
            )
            execute(folder, environment)
        except RunFailed as failure:
            failures.append(str(failure))
            tell(f'Failed: {failure}')
        finally:
            free.put(environment)

    pending = [(i, f) for i, f in enumerate(folders, 1) if f.state != 'finished']
    with ThreadPoolExecutor(max_workers=len(environments)) as pool:
        futures = [pool.submit(work, *entry) for entry in pending]
        try:
            for future in futures:
                future.result()
        except BaseException:
            stopped.set()
            stop_all()
            raise
    return failures


def time_left(folders: Sequence[RunFolder], side_by_side: int) -> str:
    """Returns an estimate in words, from what finished runs took for each image of a batch."""
    finished = [folder for folder in folders if folder.state == 'finished' and folder.seconds]
    if not finished:
        return 'time left unknown until a run has finished'
    seconds = sum(
        _seconds_for_image(folder.run.method, finished) * folder.run.all_images
        for folder in folders
        if folder.state != 'finished'
    )
    return f'about {in_words(seconds / side_by_side)} left'


def _seconds_for_image(method: str, finished: Sequence[RunFolder]) -> float:
    # Methods differ in speed: those of the same one tell best.
    alike = [folder for folder in finished if folder.run.method == method] or finished
    return sum(f.seconds for f in alike) / sum(f.run.all_images for f in alike)


def in_words(seconds: float) -> str:
    """Returns a duration as a person would say it."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f'{seconds:.0f} s'
    return f'{minutes} min' if minutes < 60 else f'{minutes // 60} h {minutes % 60} min'
