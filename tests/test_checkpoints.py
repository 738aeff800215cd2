"""MMEngine's own checkpoints load under torch >= 2.6; any other pickled class is refused."""

from __future__ import annotations

import pickle
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner, load_checkpoint
from torch import nn
from torch.utils.data import Dataset

import mmdsym.checkpoints as checkpoints

needs_the_check = pytest.mark.skipif(
    tuple(int(part) for part in torch.__version__.split('.')[:2]) < (2, 6),
    reason='older torch does not check pickled classes by default',
)


class ToyDataset(Dataset):
    METAINFO = {'classes': ('scratch', 'pit'), 'palette': [(0, 0, 0), (1, 1, 1)]}

    @property
    def metainfo(self):
        return self.METAINFO

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {'inputs': torch.full((3,), float(index)), 'targets': torch.tensor([1.0])}


class ToyModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 1)
        self.norm = nn.BatchNorm1d(1)

    def forward(self, inputs, targets=None, mode='tensor'):
        prediction = self.norm(self.linear(inputs))
        return {'loss': (prediction - targets).square().mean()} if mode == 'loss' else prediction


def make_runner(work_dir: Path, max_iters: int, **options) -> Runner:
    return Runner(
        model=ToyModel(),
        work_dir=str(work_dir),
        train_dataloader={
            'dataset': ToyDataset(),
            'batch_size': 4,
            'num_workers': 0,
            'collate_fn': {'type': 'default_collate'},
            'sampler': {'type': 'InfiniteSampler', 'shuffle': True},
        },
        train_cfg={'by_epoch': False, 'max_iters': max_iters},
        optim_wrapper={'optimizer': {'type': 'AdamW', 'lr': 0.01}},
        param_scheduler=[
            {'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'begin': 0, 'end': 3},
            {'type': 'CosineAnnealingLR', 'T_max': 10, 'by_epoch': False},
        ],
        custom_hooks=[{'type': 'EMAHook'}],
        default_hooks={
            'logger': {'type': 'LoggerHook', 'interval': 1},
            'checkpoint': {'type': 'CheckpointHook', 'by_epoch': False, 'interval': 4},
        },
        experiment_name=f'toy_{work_dir.name}_{max_iters}',
        **options,
    )


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> Path:
    work_dir = tmp_path_factory.mktemp('run')
    make_runner(work_dir, max_iters=4).train()
    return work_dir / 'iter_4.pth'


def test_the_run_really_wrote_what_torch_refuses(checkpoint):
    assert b'HistoryBuffer' in checkpoint.read_bytes()


@needs_the_check
def test_without_mmdsym_the_checkpoint_is_refused(checkpoint):
    # If this fails, a newer MMEngine or torch has mended it and the allow-list can go.
    script = f'import mmengine.logging, torch; torch.load({str(checkpoint)!r})'
    result = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert result.returncode != 0
    assert 'UnpicklingError' in result.stderr


def test_a_fresh_process_loads_it_after_importing_mmdsym(checkpoint):
    script = (
        'import mmdsym\n'
        'from mmengine.runner.checkpoint import CheckpointLoader\n'
        f'loaded = CheckpointLoader.load_checkpoint({str(checkpoint)!r}, map_location="cpu")\n'
        'history = loaded["message_hub"]["log_scalars"]["train/loss"]\n'
        'assert len(history.data[0]) == 4, history.data\n'
        'assert history.mean() > 0\n'
    )
    subprocess.run([sys.executable, '-c', script], check=True)


def test_the_run_resumes(checkpoint, tmp_path):
    runner = make_runner(tmp_path, max_iters=6, load_from=str(checkpoint), resume=True)
    runner.train()
    assert runner.iter == 6
    history, _ = runner.message_hub.get_scalar('train/loss').data
    # Four losses of the first run and two of the second.
    assert len(history) == 6


def test_the_weights_load(checkpoint):
    model = ToyModel()
    before = model.linear.weight.clone()
    load_checkpoint(model, str(checkpoint), map_location='cpu')
    assert not torch.equal(before, model.linear.weight)


@pytest.mark.parametrize('dtype', ['int64', 'float32', 'float64'])
def test_numpy_scalars_and_histories_survive(dtype, tmp_path):
    hub = MessageHub('numpy_values')
    hub.update_info('best_score', np.dtype(dtype).type(1))
    hub.update_scalar('score', np.dtype(dtype).type(1))
    torch.save(hub.state_dict(), tmp_path / 'hub.pth')
    loaded = torch.load(tmp_path / 'hub.pth')
    assert loaded['runtime_info']['best_score'] == 1
    assert loaded['log_scalars']['score'].current() == 1


class Foreign:
    """Stands for whatever a checkpoint of unknown origin may hold."""


class CallsFunction:
    def __init__(self, function, *arguments):
        self.parts = (function, arguments)

    def __reduce__(self):
        return self.parts


@needs_the_check
@pytest.mark.parametrize(
    'value',
    [
        Foreign(),
        Path('somewhere'),
        Fraction(1, 2),
        CallsFunction(print, 'run by a checkpoint'),
        CallsFunction(getattr, np.ndarray, 'tofile'),
        CallsFunction(getattr, HistoryBuffer, '__init__'),
        CallsFunction(getattr, HistoryBuffer, 'register_statistics'),
    ],
    ids=['class', 'path', 'fraction', 'call', 'other class', 'dunder', 'method'],
)
def test_anything_else_is_refused(value, tmp_path):
    torch.save({'state_dict': {}, 'meta': value}, tmp_path / 'foreign.pth')
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        torch.load(tmp_path / 'foreign.pth')


@needs_the_check
def test_the_allow_list_holds_no_general_getattr():
    assert getattr not in checkpoints.allowed_globals()
    assert not any(
        entry[0] is getattr for entry in checkpoints.allowed_globals() if isinstance(entry, tuple)
    )


@pytest.mark.parametrize('name', ['__init__', '__setstate__', 'update', 'statistics'])
def test_only_the_four_statistics_are_given(name):
    with pytest.raises(ValueError, match=name):
        checkpoints.history_statistic(HistoryBuffer, name)
    with pytest.raises(ValueError, match='mean'):
        checkpoints.history_statistic(np.ndarray, 'mean')


def test_allowing_twice_is_harmless():
    before = len(torch.serialization.get_safe_globals()) if needs_safe_globals() else 0
    checkpoints.allow_mmengine_checkpoints()
    if needs_safe_globals():
        assert len(torch.serialization.get_safe_globals()) == before


def needs_safe_globals() -> bool:
    return hasattr(torch.serialization, 'get_safe_globals')
