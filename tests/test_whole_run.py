"""One command from data to report: once in one go, once interrupted again and again."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from PIL import Image
from safetensors.torch import load_file
from test_training import losses
from tools_in_processes import kill_as_soon_as, run_tool
from whole_run_data import write_configs

from mmdsym import command_line
from mmdsym.command_line import build_runner
from mmdsym.diffusion.file_lock import locked
from mmdsym.pipeline import part_making
from mmdsym.pipeline.part_training import INTERRUPTED, train_part
from mmdsym.pipeline.starts import read_starts
from mmdsym.pipeline.whole_run import WholeRun


class InterruptHook(Hook):
    """Stands for Ctrl-C in the iteration after ``after`` ones."""

    priority = 'LOWEST'

    def __init__(self, after: int) -> None:
        self.after = after

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.after:
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def scope():
    yield
    DefaultScope._instance_dict.clear()


def start(
    leaf: Path, work_dir: Path, interrupt_after: int | None = None, report: bool = False
) -> None:
    cfg = Config.fromfile(leaf)
    cfg.work_dir = str(work_dir)
    # One report and one export are enough.
    cfg.after_training.update(report=report, export='teacher' if report else None)
    run = WholeRun(cfg)
    run.cfg.experiment_name = f'{work_dir.parent.name}_{interrupt_after}_{len(INTERRUPTIONS)}'
    INTERRUPTIONS.append(interrupt_after)
    with interrupted(interrupt_after):
        run.execute()


INTERRUPTIONS: list[int | None] = []


@contextmanager
def interrupted(after: int | None, folder: str = ''):
    """Interrupts what this process trains, in folders of that name or in any.

    Configs stay as they are, since they are compared.
    """

    def build(cfg: Config) -> Runner:
        runner = build_runner(cfg)
        if after is not None and folder in ('', Path(cfg.work_dir).name):
            runner.register_hook(InterruptHook(after))
        return runner

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command_line, 'build_runner', build)
        yield


def interrupted_in_process(monkeypatch, after: int | None) -> None:
    """Lets parts train in this process, which saves seconds, and stop after some iterations."""

    def run(folder: Path) -> int:
        try:
            with interrupted(after):
                train_part(folder)
        except KeyboardInterrupt:
            return INTERRUPTED
        return 0

    monkeypatch.setattr(part_making, '_run', run)


@pytest.fixture(scope='module')
def whole(tiny_data, tmp_path_factory):
    """The folder of a run that nothing interrupted, its parts trained by processes of their own."""
    folder = tmp_path_factory.mktemp('whole')
    start(write_configs(folder, tiny_data), folder / 'run', report=True)
    return folder


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    """Sums of several threads are rounded differently each time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def parts_of(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    files = [*folder.glob('data/diffusion/*/unet/*.safetensors'), *folder.glob('data/clip/*/*.sa*')]
    return {str(path.relative_to(folder)): load_file(path) for path in files}


def pixels_of(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(p)) for p in sorted(folder.glob('data/synthetic/*/*/images/*'))]


def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    whole, tiny_data, tmp_path, monkeypatch, capsys
):
    leaf = write_configs(tmp_path, tiny_data)
    with monkeypatch.context() as patch:
        interrupted_in_process(patch, after=3)
        with pytest.raises(KeyboardInterrupt):
            start(leaf, tmp_path / 'run')
    assert not list(tmp_path.glob('data/diffusion/*/mmdsym.json'))
    interrupted_in_process(monkeypatch, after=None)
    capsys.readouterr()
    with pytest.raises(KeyboardInterrupt):
        start(leaf, tmp_path / 'run', interrupt_after=4)
    told = capsys.readouterr().out
    assert 'diffusion model: training goes on at iteration 2 of 4' in told
    assert 'training: begins' in told
    start(leaf, tmp_path / 'run')
    told = capsys.readouterr().out
    assert 'diffusion model: found' in told and 'CLIP model: found' in told
    assert 'training: goes on from' in told and 'iter_3.pth' in told

    expected, found = parts_of(whole), parts_of(tmp_path)
    assert len(expected) == 2 and expected.keys() == found.keys(), 'the keys are the same'
    for name, tensors in expected.items():
        for key, tensor in tensors.items():
            # A bias of attention's keys changes nothing, so that its gradient is rounding alone,
            # which Adam takes for a direction.
            if not key.endswith(('in_proj_bias', 'to_k.bias')):
                torch.testing.assert_close(found[name][key], tensor, rtol=1e-3, atol=1e-5, msg=key)
    for one, other in zip(pixels_of(whole), pixels_of(tmp_path), strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1
    assert_same_ending(whole / 'run', tmp_path / 'run')


def test_a_run_that_is_killed_again_and_again_ends_like_an_uninterrupted_one(
    whole, tiny_data, tmp_path
):
    leaf, run = write_configs(tmp_path, tiny_data), tmp_path / 'run'
    command = ['train.py', leaf, '--work-dir', run, '--cfg-options']
    command += ['after_training.report=False', 'after_training.export=None']

    def found(pattern: str) -> list[Path]:
        return list(tmp_path.glob(pattern))

    # The process that trains a part ends with the one that started it, wherever it is.
    kill_as_soon_as(lambda: found('data/diffusion/*.training/iter_2.pth'), *command)
    (training,) = found('data/diffusion/*.training')
    with locked(training / '.lock'):
        assert not (training / 'made.json').exists()
    # With one synthetic image made of three.
    run_tool(*command, kill_at=('mmdsym.diffusion.cache:SynthesisCache.add', 2))
    assert len(list((tmp_path / 'data/synthetic').rglob('*.png'))) == 1
    # In the joint stage, behind the checkpoint of iteration 3.
    run_tool(*command, kill_at=('mmdsym.engine.train_loop:StagedTrainLoop._run_iteration', 5))
    assert [path.name for path in found('run/iter_*.pth')] == ['iter_3.pth']
    # After the training, before the results get their name.
    run_tool(*command, kill_at=('mmdsym.pipeline.after_training:write_file', 1))
    assert found('run/iter_8.pth') and not found('run/results.json')
    done = run_tool(*command)
    assert done.returncode == 0, done.stderr

    assert 'training: found, 8 iterations' in done.stdout
    for name, tensors in parts_of(whole).items():
        assert tensors.keys() == parts_of(tmp_path)[name].keys()
    for one, other in zip(pixels_of(whole), pixels_of(tmp_path), strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1
    assert_same_ending(whole / 'run', run)
    iterations = [start['iteration'] for start in read_starts(run)]
    assert iterations == [0, 0, 3]


def assert_same_ending(one: Path, other: Path) -> None:
    first, second = losses(one), losses(other)
    assert sorted(first) == sorted(second) == list(range(1, 9))
    for step, loss in second.items():
        assert loss == pytest.approx(first[step], rel=1e-3), step
    a, b = (torch.load(run / 'iter_8.pth', weights_only=True) for run in (one, other))
    assert a['meta']['iter'] == b['meta']['iter'] == 8
    for name, tensor in a['state_dict'].items():
        torch.testing.assert_close(b['state_dict'][name], tensor, rtol=1e-2, atol=1e-4, msg=name)
    assert a['clip_filter']['fits'] == b['clip_filter']['fits'] >= 1
    state, other_state = (dict(flat(checkpoint['clip_filter'])) for checkpoint in (a, b))
    assert state and state.keys() == other_state.keys()
    for name, value in state.items():
        torch.testing.assert_close(other_state[name], value, rtol=1e-2, atol=1e-2, msg=name)
    results = [json.loads((run / 'results.json').read_text()) for run in (one, other)]
    assert results[0]['iteration'] == results[1]['iteration'] == 8
    for network in ('teacher', 'student'):
        metrics = [result['metrics'][network]['coco/bbox_mAP_50'] for result in results]
        assert metrics[0] == pytest.approx(metrics[1], abs=0.02)


def flat(value, name=''):
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from flat(entry, f'{name}.{key}')
    elif isinstance(value, (torch.Tensor, int, float)):
        yield name, torch.as_tensor(value, dtype=torch.float64)


def test_all_parts_took_part_and_all_results_are_there(whole):
    log = next(whole.glob('run/*/*.log')).read_text()
    for stage in ('burn_in', 'joint', 'refine'):
        assert f"Stage '{stage}' begins" in log
    assert 'Fusion of' in log and 'Synthetic images: 3 are in' in log
    run = whole / 'run'
    results = json.loads((run / 'results.json').read_text())
    assert set(results['metrics']) == {'teacher', 'student'}
    assert (run / 'detector/tiny_teacher.pth').is_file()
    steps = json.loads((run / 'run.json').read_text())['steps']
    assert Path(steps['report']['files'][0]).is_file()


def test_a_finished_run_is_left_alone_and_says_where_everything_is(whole, capsys, monkeypatch):
    monkeypatch.setattr(part_making, '_run', lambda folder: pytest.fail('trained again'))
    files = {path: path.stat().st_mtime_ns for path in whole.rglob('*') if path.is_file()}
    start(whole / 'tiny.py', whole / 'run', report=True)
    told = capsys.readouterr().out
    for place in ('iter_8.pth', 'results.json', 'detector/tiny_teacher.pth', 'report'):
        assert place in told
    assert told.count('found') == 6
    left = {path: path.stat().st_mtime_ns for path in whole.rglob('*') if path.is_file()}
    assert left == files
