"""What goes wrong around a run: disk, workers, images, annotations."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, RUNNERS, DefaultScope
from test_training import losses
from tools_in_processes import write_training

from mmdsym.engine import run_faults
from mmdsym.errors import UserError, own_words


@HOOKS.register_module()
class MishapHook(Hook):
    """Lets something happen before one iteration."""

    def __init__(self, at: int, happen) -> None:
        self.at, self.happen = at, happen

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.at:
            self.happen()


@pytest.fixture(autouse=True)
def scope():
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data(tiny_data, tmp_path) -> Path:
    """A copy of the tiny data that may be spoilt."""
    return Path(shutil.copytree(tiny_data, tmp_path / 'data'))


STARTS: list[Path] = []


def train(work_dir: Path, data: Path, happen=None, at: int = 1, workers: int = 0, **options):
    cfg = Config.fromfile(write_training(work_dir.parent, data, workers))
    cfg.work_dir = str(work_dir)
    cfg.merge_from_dict(options)
    STARTS.append(work_dir)
    cfg.experiment_name = f'{work_dir.parent.name}_{work_dir.name}_{len(STARTS)}'
    runner = RUNNERS.build(cfg)
    if happen is not None:
        runner.register_hook(MishapHook(at, happen))
    runner.train()
    return runner


def error_of(*args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        train(*args, **kwargs)
    words = own_words(caught.value)
    assert '\n' not in words
    return words


@pytest.fixture(scope='module')
def whole(tiny_data, tmp_path_factory) -> Path:
    """A run in which nothing happened."""
    work_dir = tmp_path_factory.mktemp('whole') / 'run'
    train(work_dir, tiny_data)
    DefaultScope._instance_dict.clear()
    return work_dir


def assert_same_ending(one: Path, other: Path) -> None:
    first, second = (torch.load(run / 'iter_9.pth', weights_only=True) for run in (one, other))
    for name, tensor in first['state_dict'].items():
        torch.testing.assert_close(second['state_dict'][name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='needs a device that is always full')
def test_a_full_disk_costs_no_checkpoint(whole, data, tmp_path):
    run = tmp_path / 'run'

    def fill() -> None:
        # The kernel itself then says that no space is left.
        (run / '.iter_4.pth.unfinished').symlink_to('/dev/full')

    error = error_of(run, data, fill, at=3)
    assert 'no space is left' in error and 'iter_4.pth' in error and 'start again' in error
    assert {path.name for path in run.glob('iter_*.pth')} == {'iter_2.pth'}
    assert not list(run.glob('.*unfinished'))
    torch.load(run / 'iter_2.pth', weights_only=True)
    train(run, data, resume=True)
    assert_same_ending(whole, run)


def test_a_disk_that_is_full_before_the_log_is_written_is_told_too(data, tmp_path):
    def fill() -> None:
        raise OSError(28, os.strerror(28), 'somewhere/scalars.json')

    error = error_of(tmp_path / 'run', data, fill)
    assert 'no space is left on the disk of somewhere/scalars.json: free some' in error


def test_an_error_of_another_kind_keeps_its_traceback(data, tmp_path):
    def fail() -> None:
        raise RuntimeError('a fault of the program')

    with pytest.raises(RuntimeError, match='a fault of the program'):
        train(tmp_path / 'run', data, fail)


def kill_workers() -> None:
    workers = multiprocessing.active_children()
    assert workers
    for worker in workers:
        os.kill(worker.pid, signal.SIGKILL)


def test_a_worker_that_dies_is_told_and_the_run_goes_on(whole, data, tmp_path):
    run = tmp_path / 'run'
    error = error_of(run, data, kill_workers, at=3, workers=1)
    assert 'which loaded images, was killed' in error and 'lower num_workers' in error
    assert {path.name for path in run.glob('iter_*.pth')} == {'iter_2.pth'}
    train(run, data, workers=1, resume=True)
    assert_same_ending(whole, run)


@pytest.mark.parametrize(
    'message',
    [
        'DataLoader worker (pid 17) is killed by signal: Killed. ',
        'DataLoader worker (pid(s) 17, 18) exited unexpectedly',
        'DataLoader worker (pid 17) exited unexpectedly with exit code 1.',
    ],
)
def test_every_way_in_which_torch_tells_of_it_is_known(message):
    with (
        pytest.raises(UserError, match='process 17(, 18)?, which loaded images'),
        run_faults.told_in_one_sentence('somewhere'),
    ):
        raise RuntimeError(message)


@pytest.mark.parametrize('workers', [0, 1])
def test_an_image_that_disappears_is_named_and_the_run_goes_on(whole, data, tmp_path, workers):
    run, aside = tmp_path / 'run', tmp_path / 'aside'
    # Images 6 to 9 are unlabelled: the joint stage, from iteration 3, is the first to want them.
    names = [f'{number:03d}.png' for number in range(6, 10)]

    def disappear() -> None:
        aside.mkdir()
        for name in names:
            (data / 'images' / name).rename(aside / name)

    happen_at = 0
    error = error_of(run, data, disappear, at=happen_at, workers=workers)
    assert any(f'images/{name} cannot be read' in error for name in names)
    assert 'restore the file' in error
    for name in names:
        (aside / name).rename(data / 'images' / name)
    train(run, data, workers=workers, resume=True)
    assert_same_ending(whole, run)


@pytest.mark.parametrize('spoil', ['damaged', 'missing'])
@pytest.mark.parametrize('workers', [0, 1])
def test_a_validation_image_that_cannot_be_read_is_named(data, tmp_path, workers, spoil):
    # MMCV's own loading, which the test pipeline has, says nothing of the file.
    listed = json.loads((data / 'annotations/val.json').read_text())['images']
    path = data / 'images' / listed[0]['file_name']
    path.write_bytes(path.read_bytes()[:20]) if spoil == 'damaged' else path.unlink()
    cfg = Config.fromfile(write_training(tmp_path, data, workers))
    cfg.work_dir = str(tmp_path / 'run')
    cfg.experiment_name = tmp_path.name
    runner = RUNNERS.build(cfg)
    with pytest.raises(UserError) as caught:
        runner.val()
    assert f'image {path} cannot be read' in own_words(caught.value)


def test_annotations_that_change_meanwhile_do_not_matter_to_the_run(whole, data, tmp_path):
    run, files = tmp_path / 'run', sorted((data / 'annotations/40pct_seed0').glob('*.json'))

    def change() -> None:
        for path in files:
            path.write_text('{"images": [')

    train(run, data, change, at=1)
    assert losses(run) == pytest.approx(losses(whole), rel=1e-4)
    assert_same_ending(whole, run)
    # The next start reads them, and says so.
    error = error_of(run, data, resume=True)
    assert 'is not a COCO annotation file' in error
    assert json.loads((data / 'annotations/val.json').read_text())['images']
