"""tools/dist_train.sh with two processes: what --auto-scale-lr and images_per_step come to."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from mmengine import Config

BACKBONE = 0.3
"""What the schedule multiplies the backbone's learning rate by."""

CONFIG = """
_base_ = '{configs}/baselines/teacher_student_neu_40pct.py'
data_root = '{data}/'
image_size = (64, 64)
model = dict(detector=dict(backbone=dict(pretrained=None)))
train_dataloader = dict(num_workers=0, persistent_workers=False)
val_cfg = val_dataloader = val_evaluator = None
custom_hooks = [dict(type='mmdsym.StageHook')]
train_cfg = dict(
    stages=dict(
        _delete_=True,
        burn_in=dict(begin=0, end=4, images=dict(labelled=4)),
    )
)
param_scheduler = []
default_hooks = dict(logger=dict(interval=1))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(enable=False, base_batch_size=4)
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(('127.0.0.1', 0))
        return one.getsockname()[1]


def train(data: Path, folder: Path, *arguments: str) -> tuple[str, Config]:
    """Trains in two processes; returns what was logged and the config that was left."""
    config = folder / 'two.py'
    config.write_text(CONFIG.format(configs=REPOSITORY / 'configs', data=data))
    environment = {
        **os.environ,
        # The script calls `python`.
        'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
        'PORT': str(free_port()),
        'OMP_NUM_THREADS': '1',
        'CUDA_VISIBLE_DEVICES': '',
    }
    run = folder / 'run'
    command = [REPOSITORY / 'tools/dist_train.sh', config, '2', '--work-dir', run, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=REPOSITORY, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr, Config.fromfile(run / 'two.py')


def learning_rates(log: str) -> set[float]:
    """Those of the backbone; MMEngine does not scale the `base_lr` that it logs besides."""
    return {float(rate) for rate in re.findall(r'Iter\(train\).*? lr: (\S+)', log)}


@pytest.mark.parametrize(
    ('arguments', 'growth', 'images', 'end'),
    [
        # Eight images in a step in place of four, and as many steps.
        (['--auto-scale-lr'], 2, 4, 4),
        # Eight images in a step, half the steps, and AdamW's rate by the root of two.
        (['--cfg-options', 'images_per_step=8'], 2**0.5, 4, 2),
    ],
)
def test_two_processes_make_a_step_twice_as_large(
    tiny_data, tmp_path, arguments, growth, images, end
):
    log, config = train(tiny_data, tmp_path, *arguments)
    assert list(learning_rates(log)) == [pytest.approx(1e-3 * BACKBONE * growth, rel=1e-3)]
    stage = config.train_cfg.stages.burn_in
    assert (stage.images.labelled, stage.end) == (images, end)
