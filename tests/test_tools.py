"""What the commands say when they are called wrongly: one line, and status 2."""

import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from mmdsym.pipeline.work_folder import claimed


def run_tool(tool: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / 'tools' / tool), *arguments],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, 'PYTHONWARNINGS': 'ignore', 'CUDA_VISIBLE_DEVICES': ''},
        check=False,
    )


@pytest.mark.parametrize(
    ('tool', 'arguments', 'message'),
    [
        ('train.py', ['configs/nothing.py'], 'there is no config configs/nothing.py'),
        ('test.py', ['configs/nothing.py', 'x.pth'], 'there is no config configs/nothing.py'),
        (
            'train.py',
            ['configs/dsym_neu_40pct.py', '--cfg-options', 'data_root=no/data/'],
            'data_root no/data/ does not exist',
        ),
        (
            'test.py',
            ['configs/baselines/supervised_neu_40pct.py', 'x.pth', '--which', 'teacher'],
            'leave out --which',
        ),
        (
            'train.py',
            ['configs/baselines/supervised_neu_40pct.py', '--auto-scale-lr'],
            'add auto_scale_lr',
        ),
        (
            'train.py',
            ['configs/baselines/supervised_neu_40pct.py', '--amp'],
            'leave --amp out',
        ),
    ],
)
def test_wrong_calls_get_one_line(tool, arguments, message, tmp_path):
    done = run_tool(tool, *arguments, '--work-dir', str(tmp_path))
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith('error: ') and message in last
    assert 'Traceback' not in done.stderr


def test_an_earlier_run_is_not_overwritten(tmp_path):
    (tmp_path / 'last_checkpoint').write_text('iter_10.pth')
    done = run_tool('train.py', 'configs/dsym_neu_40pct.py', '--work-dir', str(tmp_path))
    assert done.returncode == 2
    assert 'go on with --resume' in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ['last_checkpoint']


def test_two_trainings_never_share_a_work_folder(tmp_path, tiny_config):
    cfg = tiny_config('baselines/supervised_neu_40pct.py', image_size=(64, 64))
    config = tmp_path / 'config.py'
    cfg.dump(config)
    with claimed(tmp_path / 'run'):
        done = run_tool('train.py', str(config), '--work-dir', str(tmp_path / 'run'))
    assert done.returncode == 2, done.stderr
    assert 'another process trains in' in done.stderr and 'Traceback' not in done.stderr
    assert [path.name for path in (tmp_path / 'run').iterdir()] == ['.lock']
