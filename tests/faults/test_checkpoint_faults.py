"""A checkpoint that a killed run left in half is named, never taken for a whole one."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_checkpoints import ToyDataset, ToyModel

from mmdsym.engine import DSYMRunner
from mmdsym.errors import UserError


def make_runner(work_dir: Path, max_iters: int, **options) -> DSYMRunner:
    dataloader = dict(
        dataset=ToyDataset(),
        batch_size=4,
        num_workers=0,
        collate_fn=dict(type='default_collate'),
        sampler=dict(type='InfiniteSampler', shuffle=True),
    )
    return DSYMRunner(
        model=ToyModel(),
        work_dir=str(work_dir),
        train_dataloader=dataloader,
        train_cfg=dict(by_epoch=False, max_iters=max_iters),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2)),
        experiment_name=f'half_{work_dir.parent.name}_{max_iters}_{len(options)}',
        **options,
    )


@pytest.fixture
def work_dir(tmp_path) -> Path:
    """A run of four iterations with its checkpoints of the second and the fourth."""
    make_runner(tmp_path / 'run', max_iters=4).train()
    return tmp_path / 'run'


@pytest.mark.parametrize('share', [0, 0.5, 0.999])
def test_a_cut_checkpoint_is_named_on_resume(work_dir, share):
    path = work_dir / 'iter_4.pth'
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    # The folder still points at it: that is how a plain --resume finds it.
    for options in (dict(), dict(load_from=str(path))):
        runner = make_runner(work_dir, 6, resume=True, **options)
        with pytest.raises(UserError, match='iter_4.pth cannot be read as a checkpoint') as caught:
            runner.train()
        assert '\n' not in str(caught.value)


def test_one_that_was_never_finished_is_passed_over(work_dir):
    whole = (work_dir / 'iter_4.pth').read_bytes()
    # A checkpoint is pointed at once it is whole.
    (work_dir / 'iter_6.pth').write_bytes(whole[: len(whole) // 2])
    runner = make_runner(work_dir, 8, resume=True)
    runner.train()
    assert runner.iter == 8


def test_the_counters_of_the_optimizer_stay_on_the_cpu(work_dir, monkeypatch):
    runner = make_runner(work_dir, 6, resume=True)
    # Stands in for a GPU, to which MMEngine would read the checkpoint.
    monkeypatch.setattr('mmengine.runner.runner.get_device', lambda: 'meta')
    runner.train()
    steps = [state['step'] for state in runner.optim_wrapper.optimizer.state.values()]
    assert steps and all(step.device.type == 'cpu' and step == 6 for step in steps)
