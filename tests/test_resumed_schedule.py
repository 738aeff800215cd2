"""A run that goes on learns by its config, not by that of its checkpoint."""

import copy

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.optim.scheduler import (
    CosineAnnealingLR,
    LinearLR,
    MultiStepLR,
    ReduceOnPlateauLR,
    StepLR,
)

from mmdsym.engine.resumed_schedule import ConfiguredSchedule


def build(lr=0.1, length=40, weight_decay=0.0, warmup=5, schedulers=None):
    """An optimizer of two groups with warm-up and cosine, as a runner builds it."""
    groups = [dict(params=[torch.zeros(1)]), dict(params=[torch.zeros(1)], lr=lr / 10)]
    optimizer = OptimWrapper(torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay))
    if schedulers is None:
        schedulers = [
            LinearLR(optimizer, start_factor=0.1, by_epoch=False, begin=0, end=warmup),
            CosineAnnealingLR(
                optimizer, T_max=length - 5, eta_min_ratio=0.02, by_epoch=False, begin=5, end=length
            ),
        ]
    return optimizer, schedulers


def after(steps: int, **settings):
    optimizer, schedulers = build(**settings)
    for _ in range(steps):
        for scheduler in schedulers:
            scheduler.step()
    return optimizer, schedulers


def load(optimizer, schedulers, of):
    """What a runner does with the state of a checkpoint."""
    optimizer.load_state_dict(copy.deepcopy(of[0].state_dict()))
    for scheduler, other in zip(schedulers, of[1], strict=False):
        scheduler.load_state_dict(copy.deepcopy(other.state_dict()))


def rates(optimizer) -> list[float]:
    return [group['lr'] for group in optimizer.param_groups]


@pytest.mark.parametrize('steps', [0, 3, 20, 40])
def test_nothing_changes_where_the_config_is_the_same(steps):
    saved = after(steps)
    optimizer, schedulers = build()
    configured = ConfiguredSchedule.of(optimizer, schedulers)
    load(optimizer, schedulers, saved)
    assert configured.apply(optimizer, schedulers, steps) == []
    assert rates(optimizer) == rates(saved[0])


@pytest.mark.parametrize(
    ('settings', 'named'),
    [
        (dict(lr=0.01), 'initial_lr'),
        (dict(length=120), 'T_max of CosineAnnealingLR'),
        (dict(warmup=30), 'end of LinearLR'),
        (dict(weight_decay=0.3), 'weight_decay'),
    ],
)
def test_a_run_goes_on_as_if_it_had_always_been_so(settings, named):
    optimizer, schedulers = build(**settings)
    configured = ConfiguredSchedule.of(optimizer, schedulers)
    load(optimizer, schedulers, after(40))
    assert named in configured.apply(optimizer, schedulers, 40)
    other = after(40, **settings)
    for _ in range(10):
        assert rates(optimizer) == pytest.approx(rates(other[0]), rel=1e-12)
        assert optimizer.param_groups[0]['weight_decay'] == settings.get('weight_decay', 0.0)
        for scheduler in [*schedulers, *other[1]]:
            scheduler.step()


def test_a_finished_run_that_is_made_longer_learns_again():
    optimizer, schedulers = build(length=120)
    configured = ConfiguredSchedule.of(optimizer, schedulers)
    load(optimizer, schedulers, after(40))
    assert rates(optimizer)[0] < 0.003, 'the end of the shorter schedule'
    configured.apply(optimizer, schedulers, 40)
    assert rates(optimizer)[0] > 0.07


def test_a_scheduler_that_the_checkpoint_did_not_have_is_caught_up():
    optimizer, schedulers = build()
    schedulers.append(MultiStepLR(optimizer, milestones=[10], gamma=0.5, by_epoch=False))
    configured = ConfiguredSchedule.of(optimizer, schedulers)
    load(optimizer, schedulers, after(20))
    before = rates(optimizer)
    assert configured.apply(optimizer, schedulers, 20) == ['global_step of MultiStepLR']
    assert rates(optimizer) == pytest.approx([rate / 2 for rate in before], rel=0.1)


def test_schedules_that_do_not_follow_from_iterations_stay_those_of_the_checkpoint():
    optimizer, _ = build(schedulers=[])
    for scheduler in (StepLR(optimizer, step_size=2), ReduceOnPlateauLR(optimizer)):
        assert ConfiguredSchedule.of(optimizer, [scheduler]) is None
    assert ConfiguredSchedule.of(optimizer, {'one': []}) is None
    configured = ConfiguredSchedule.of(optimizer, None)
    assert configured.apply(optimizer, None, 7) == []
