"""Trains and evaluates one run, each in a process of its own."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from .hardware import commit, hardware, versions
from .run_folder import RunFolder

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
_running: set[subprocess.Popen] = set()


class RunFailed(RuntimeError):
    """A training or an evaluation ended with an error; the message says which and why."""


def execute(folder: RunFolder, environment: Mapping[str, str]) -> None:
    """Does what a run still lacks: training, from its last checkpoint if it has one; evaluation.

    Args:
        folder: Of the run.
        environment: Variables to set for its processes, such as ``CUDA_VISIBLE_DEVICES``.

    Raises:
        RunFailed: One of the processes failed; what it left is gone on from the next time.
    """
    if folder.state in ('missing', 'interrupted'):
        _train(folder, environment)
    if folder.state == 'trained':
        _evaluate(folder, environment)


def training_command(folder: RunFolder, resume: bool) -> list[str]:
    """Returns the command that trains a run."""
    command = [sys.executable, str(TOOLS / 'train.py'), str(folder.run.config)]
    command += ['--work-dir', str(folder.work_dir)]
    if resume:
        command.append('--resume')
    # Last, since it takes all that follows.
    return [*command, '--cfg-options', *(f'{k}={v}' for k, v in folder.run.overrides.items())]


def _train(folder: RunFolder, environment: Mapping[str, str]) -> None:
    command = training_command(folder, resume=folder.state == 'interrupted')
    folder.begin_attempt(
        {
            'command': shlex.join(command[1:]),
            'commit': commit(),
            'hardware': hardware(),
            'versions': versions(),
        }
    )
    began = time.monotonic()
    status = _run(command, folder, environment)
    folder.end_attempt(time.monotonic() - began, status)
    if status:
        raise RunFailed(f'{folder.run.name}: the training failed ({_last_line(folder.log)})')


def _evaluate(folder: RunFolder, environment: Mapping[str, str]) -> None:
    out = folder.path / 'evaluation.json'
    command = [sys.executable, str(TOOLS / 'collect_results.py'), str(folder.work_dir)]
    command += ['--out', str(out), '--force', '--commit', folder.attempts[-1]['commit']]
    if _run(command, folder, environment):
        raise RunFailed(f'{folder.run.name}: the evaluation failed ({_last_line(folder.log)})')
    folder.finish(describe_result(folder, json.loads(out.read_text(encoding='utf-8'))))


def describe_result(folder: RunFolder, evaluation: Mapping) -> dict:
    """Returns everything about a finished run.

    Args:
        folder: Of the run.
        evaluation: What tools/collect_results.py wrote about it.
    """
    run, evaluated = folder.run, evaluation['runs'][0]
    # Of a pair, the teacher is what is deployed.
    network = 'teacher' if 'teacher' in evaluated['metrics'] else 'detector'
    metrics = evaluated['metrics'][network]
    prefix = 'coco/AP50/'
    return {
        'method': run.method,
        'config': '/'.join(run.config.parts[-2:]),
        'split': run.split,
        'fraction': run.fraction,
        'seed': run.seed,
        'options': {name: str(value) for name, value in run.overrides.items()},
        'iterations': evaluated['iterations'],
        'labelled_images': run.labelled_images,
        'training_hours': evaluated['training_hours'],
        'part_hours': evaluated.get('part_hours') or {},
        'seconds': folder.seconds,
        'attempts': folder.attempts,
        'checkpoint': evaluated['checkpoint'],
        'network': network,
        'mAP50': metrics['coco/bbox_mAP_50'],
        'AP50': {k.removeprefix(prefix): v for k, v in metrics.items() if k.startswith(prefix)},
        'metrics': evaluated['metrics'],
    }


def _run(command: list[str], folder: RunFolder, environment: Mapping[str, str]) -> int:
    folder.path.mkdir(parents=True, exist_ok=True)
    with open(folder.log, 'ab') as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        )
        _running.add(process)
        try:
            return process.wait()
        finally:
            _running.discard(process)


def stop_all() -> None:
    """Ends the processes of all runs, so that an interrupted benchmark leaves none behind."""
    for process in list(_running):
        process.terminate()


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding='utf-8', errors='replace').strip().splitlines()
    return f'{lines[-1].strip() if lines else "no message"}; see {log}'
