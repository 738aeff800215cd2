"""The tools as users run them: in processes of their own, on tiny data."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from conftest import REPOSITORY

KILLED_AT = Path(__file__).with_name('killed_at.py')

# Nine iterations of a small detector: three in each stage.
TRAINING = """
_base_ = '{configs}/baselines/teacher_student_neu_40pct.py'
data_root = '{data}/'
image_size = (64, 64)
randomness = dict(seed=0)
model = dict(
    detector=dict(
        backbone=dict(pretrained=None), test_cfg=dict(score_thr=0.0, max_per_img=5)
    )
)
train_cfg = dict(
    val_interval=100,
    stages=dict(
        burn_in=dict(end=3, images=dict(labelled=2)),
        joint=dict(
            begin=3,
            end=6,
            images=dict(labelled=2, unlabelled=2),
            # Every box of an untrained teacher is kept, so that the unsupervised loss is real.
            thresholds=dict(_delete_=True, keep=0.0, drop=0.0),
        ),
        refine=dict(
            begin=6, end=9, images=dict(labelled=1, calibration=1, unlabelled=2),
            thresholds=dict(target_precision=0.5),
        ),
    ),
)
param_scheduler = []
train_dataloader = dict(num_workers={workers}, persistent_workers={workers} > 0)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
visualizer = dict(_delete_=True, type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
"""


def write_training(folder: Path, data: Path, workers: int = 0, more: str = '') -> Path:
    """Writes the config of the tiny training, and returns it."""
    text = TRAINING + more
    for key, value in dict(configs=REPOSITORY / 'configs', data=data, workers=workers).items():
        text = text.replace(f'{{{key}}}', str(value))
    path = folder / 'training.py'
    path.write_text(text)
    return path


def environment() -> dict[str, str]:
    """Returns the variables of a tool's process; on one thread sums repeat to the last bit."""
    return {**os.environ, 'PYTHONWARNINGS': 'ignore', 'OMP_NUM_THREADS': '1'}


def kill_as_soon_as(seen: Callable[[], bool], tool: str, *arguments: str | Path) -> None:
    """Starts a tool, and kills it with SIGKILL as soon as something is to be seen."""
    command = [sys.executable, f'tools/{tool}', *map(str, arguments)]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment(), stdout=subprocess.DEVNULL
    ) as process:
        while not seen():
            assert process.poll() is None, 'it ended by itself'
            time.sleep(0.05)
        process.kill()


def run_tool(
    tool: str, *arguments: str | Path, kill_at: tuple[str, int] | None = None
) -> subprocess.CompletedProcess:
    """Runs ``tools/<tool>``, which is killed at the nth call of a function where that is given."""
    killing = [str(KILLED_AT), kill_at[0], str(kill_at[1])] if kill_at else []
    done = subprocess.run(
        [sys.executable, *killing, f'tools/{tool}', *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=environment(),
        check=False,
        timeout=1800,
    )
    if kill_at:
        assert done.returncode == -signal.SIGKILL, done.stderr
    return done


def assert_one_line(done: subprocess.CompletedProcess, *words: str) -> str:
    """Makes sure that a tool ended with status 2 and one sentence, and returns that."""
    assert done.returncode == 2, done.stderr
    assert 'Traceback' not in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith('error: ')
    for word in words:
        assert word in line, line
    return line
