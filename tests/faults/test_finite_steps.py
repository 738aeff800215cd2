"""NaN in a loss: the step is skipped and counted; too many in a row end the run with its batch."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import nn
from torch.utils.data import Dataset

from mmdsym.engine import DSYMRunner, FiniteStepHook
from mmdsym.engine.batch_record import write_batch
from mmdsym.errors import UserError


class Numbers(Dataset):
    """Eight samples, some of which make the loss what no loss should be."""

    def __init__(self, bad: dict[int, float]) -> None:
        self.bad = bad

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict:
        inputs = torch.full((3,), float(index))
        return {'inputs': inputs * self.bad.get(index, 1.0), 'name': f'{index}.png'}


class Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.linear = nn.Linear(3, 1)

    def forward(self, inputs, name=None, mode='tensor'):
        return {'loss': (self.linear(self.norm(inputs)) - 1).square().mean()}


class Watch(FiniteStepHook):
    """Also keeps what the model was after each iteration."""

    def before_train(self, runner):
        super().before_train(runner)
        self.states = []

    def after_train_iter(self, runner, *args, **kwargs):
        super().after_train_iter(runner, *args, **kwargs)
        self.states.append({k: v.clone() for k, v in runner.model.state_dict().items()})


def run(tmp_path, bad: dict[int, float], wrapper: dict, patience: int = 2, name: str = '') -> Watch:
    hook = Watch(patience)
    runner = DSYMRunner(
        model=Model(),
        work_dir=str(tmp_path),
        train_dataloader=dict(
            dataset=Numbers(bad),
            batch_size=2,
            num_workers=0,
            collate_fn=dict(type='default_collate'),
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=8),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01), **wrapper),
        custom_hooks=[hook],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=8)),
        experiment_name=f'finite_{tmp_path.name}_{name}',
    )
    runner.train()
    return hook


WRAPPERS = {
    'plain': {},
    'clipped': dict(clip_grad=dict(max_norm=1.0)),
}


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_a_bad_step_changes_nothing_and_is_counted(tmp_path, wrapper, value):
    # Batches of two: the third and the seventh of eight are bad.
    hook = run(tmp_path, {5: value}, WRAPPERS[wrapper])
    for before, after in ((1, 2), (5, 6)):
        for key, tensor in hook.states[before].items():
            if key != 'norm.num_batches_tracked':
                assert torch.equal(hook.states[after][key], tensor), key
    for before, after in ((0, 1), (2, 3), (6, 7)):
        assert not torch.equal(
            hook.states[before]['linear.weight'], hook.states[after]['linear.weight']
        )
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'Iteration 3: the loss' in log and '(1 in a row, 1 in this run)' in log
    assert 'Iteration 7: the loss' in log and '(1 in a row, 2 in this run)' in log
    hub = torch.load(tmp_path / 'iter_8.pth', weights_only=True)['message_hub']
    assert hub['log_scalars']['train/skipped_steps'].current() == 2


def test_without_the_hook_the_weights_are_lost(tmp_path, monkeypatch):
    """Shows that the case above is one."""
    monkeypatch.setattr(FiniteStepHook, '_drop_unless_finite', lambda *_: None)
    hook = run(tmp_path, {5: math.nan}, {}, patience=100)
    assert hook.states[-1]['linear.weight'].isnan().all()


@pytest.mark.parametrize('fused', [False, True])
def test_a_scale_that_was_too_large_is_left_to_the_scaler(fused):
    """Mixed precision begins with a scale that overflows a few times: no fault of the data."""
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=fused)
    hook = FiniteStepHook()
    optimizer.register_step_pre_hook(hook._drop_unless_finite)
    scaler = torch.amp.GradScaler('cpu')
    scale = scaler.scale(weight.sum()).item() / 2
    weight.grad = torch.tensor([math.inf, 1.0])
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert not hook._dropped
    assert torch.equal(weight, torch.ones(2))
    assert scaler.get_scale() == scale / 2


def test_too_many_in_a_row_end_the_run_with_the_batch(tmp_path):
    with pytest.raises(UserError) as caught:
        run(tmp_path, {4: math.nan, 6: math.inf, 0: math.nan}, {})
    message = str(caught.value)
    assert 'not finite in 3 iterations in a row, up to iteration 5' in message
    assert 'batch.json' in message and '--resume' in message
    assert '\n' not in message
    folder = tmp_path / 'not_finite_iter_5'
    assert str(folder) in message
    content = json.loads((folder / 'batch.json').read_text())
    assert content['iteration'] == 5 and content['losses']['loss'] == 'nan'
    assert content['batch']['name'] == ['0.png', '1.png']


def test_patience_counts_in_a_row(tmp_path):
    # Two bad, two good, two bad, two good.
    hook = run(tmp_path, {0: math.nan, 2: math.nan}, {}, patience=2)
    assert hook.in_a_row == 0


def test_the_default_config_has_it():
    cfg = Config.fromfile(REPOSITORY / 'configs/_base_/runtime.py')
    assert cfg.default_hooks.finite_steps.type == 'mmdsym.FiniteStepHook'
    with pytest.raises(UserError, match='patience is -1'):
        FiniteStepHook(patience=-1)


def test_a_batch_of_images_can_be_looked_at_without_pickle(tmp_path):
    sample = DetDataSample(metainfo=dict(img_path='a/b.png', img_shape=(8, 9)))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[1.0, 2.0, float('nan'), 4.0]]), labels=torch.tensor([1])
    )
    image = torch.zeros(3, 8, 9, dtype=torch.uint8)
    # The first channel is blue, as OpenCV loads it.
    image[0] = 200
    wide = torch.full((4, 40), float('inf'))
    batch = dict(inputs=dict(sup=[image]), data_samples=dict(sup=[sample]), features=wide)
    write_batch(tmp_path / 'batch', batch, iteration=7)
    text = (tmp_path / 'batch/batch.json').read_text()
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f'{name} is no json'))
    described = content['batch']['data_samples']['sup'][0]
    assert described['img_path'] == 'a/b.png'
    assert described['gt_instances']['bboxes'] == [[1.0, 2.0, 'nan', 4.0]]
    picture = content['batch']['inputs']['sup'][0]
    assert (picture['largest'], picture['not_finite']) == (200.0, 0)
    from PIL import Image

    with Image.open(tmp_path / 'batch' / picture['file']) as opened:
        assert opened.size == (9, 8) and opened.getpixel((0, 0)) == (0, 0, 200)
    array = content['batch']['features']
    assert array['not_finite'] == 160
    assert np.load(tmp_path / 'batch' / array['file'], allow_pickle=False).shape == (4, 40)
