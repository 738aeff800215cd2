"""One number stretches a schedule, and nothing else."""

import pytest
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config

from mmdsym.config import complete_config
from mmdsym.errors import UserError
from mmdsym.images_per_step import follow_images_per_step
from mmdsym.training_length import follow_iterations, iterations_of

STAGED = 'dsym_neu_40pct.py'
PLAIN = 'baselines/supervised_neu_40pct.py'


def load(name: str, **options) -> Config:
    cfg = Config.fromfile(REPOSITORY / 'configs' / name)
    cfg.merge_from_dict(options)
    return cfg


def stretched(name: str, iterations: object, **options) -> Config:
    cfg = load(name, iterations=iterations, **options)
    follow_iterations(cfg)
    return cfg


def test_three_times_the_iterations_are_stages_three_times_as_long():
    before, cfg = load(STAGED), stretched(STAGED, 3 * iterations_of(load(STAGED)))
    for name, stage in before.train_cfg.stages.items():
        longer = cfg.train_cfg.stages[name]
        assert (longer.begin, longer.end) == (3 * stage.begin, 3 * stage.end)
        assert longer.images == stage.images
        assert longer.get('thresholds') == stage.get('thresholds')
        for loss, weight in (stage.get('loss_weights') or {}).items():
            if isinstance(weight, dict):
                weight = dict(weight, iterations=3 * weight['iterations'])
            assert longer.loss_weights[loss] == weight
    assert cfg.train_cfg.val_interval == 3 * before.train_cfg.val_interval
    first, last = cfg.param_scheduler
    assert (first.end, last.begin, last.end) == (300, 300, 'refine')
    same = ('default_hooks', 'custom_hooks', 'optim_wrapper', 'train_dataloader')
    assert all(cfg[name] == before[name] for name in same)


def test_a_schedule_without_stages_follows_too():
    cfg = stretched(PLAIN, 2 * iterations_of(load(PLAIN)))
    assert iterations_of(cfg) == 2 * iterations_of(load(PLAIN))
    assert cfg.param_scheduler[-1].end == iterations_of(cfg)


@pytest.mark.parametrize('name', [STAGED, PLAIN])
@given(wanted=st.integers(min_value=50, max_value=10**6))
def test_any_number_is_met_exactly_and_once(name, wanted):
    cfg = stretched(name, wanted)
    assert iterations_of(cfg) == wanted
    once = cfg.to_dict()
    follow_iterations(cfg)
    assert cfg.to_dict() == once


def test_the_present_length_changes_nothing():
    present = iterations_of(load(STAGED))
    assert stretched(STAGED, present).to_dict() == {**load(STAGED).to_dict(), 'iterations': present}


def test_larger_steps_stand_for_as_many_iterations(tiny_config):
    cfg = tiny_config(STAGED, iterations=3600, images_per_step=36)
    for _ in range(2):
        cfg = complete_config(cfg)
        assert iterations_of(cfg) == 1800
    other = load(STAGED, iterations=3600, images_per_step=36)
    follow_iterations(other)
    follow_images_per_step(other, processes=1)
    assert other.train_cfg.stages.to_dict() == cfg.train_cfg.stages.to_dict()


@pytest.mark.parametrize('wanted', [0, -5, 2.5, '3600', 1])
def test_impossible_lengths_are_refused(wanted):
    with pytest.raises(UserError, match='iterations'):
        stretched(STAGED, wanted)


def test_a_training_by_epochs_is_refused():
    with pytest.raises(UserError, match='does not train by iterations'):
        stretched(PLAIN, 100, train_cfg=dict(_delete_=True, type='EpochBasedTrainLoop'))
