"""Stages are checked when the config is read, and every iteration belongs to one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdsym.errors import UserError
from mmdsym.stages import Ramp, StageSchedule

TWO = dict(
    burn_in=dict(begin=0, end=10, images=dict(labelled=4)),
    joint=dict(
        begin=10,
        end=30,
        images=dict(labelled=2, unlabelled=2),
        loss_weights=dict(unlabelled=dict(start=0.0, end=2.0, iterations=10)),
        thresholds=dict(target_precision=0.7),
    ),
)


def test_iterations_find_their_stage():
    schedule = StageSchedule(TWO)
    assert [schedule.at(i).name for i in (0, 9, 10, 29, 30)] == ['burn_in'] * 2 + ['joint'] * 3
    assert schedule.max_iters == 30
    assert not schedule.named('burn_in').uses_teacher
    joint = schedule.named('joint')
    assert joint.uses_teacher and joint.batch_size == 4
    assert joint.loss_weight('unlabelled', 15) == pytest.approx(1.0)
    assert joint.loss_weight('unlabelled', 29) == 2.0
    assert joint.loss_weight('labelled', 15) == 1.0
    assert joint.thresholds.target_precision == 0.7


@given(st.floats(0, 10), st.floats(0, 10), st.integers(0, 50), st.integers(0, 100))
def test_ramps_stay_between_their_ends(start, end, iterations, at):
    value = Ramp(start, end, iterations).at(at)
    assert min(start, end) - 1e-9 <= value <= max(start, end) + 1e-9
    if at >= iterations:
        assert value == end


def changed(**changes) -> dict:
    return {**TWO, 'joint': {**TWO['joint'], **changes}}


@pytest.mark.parametrize(
    ('stages', 'message'),
    [
        ({}, 'at least one stage'),
        (changed(begin=12), "stage 'joint' begins at iteration 12, but 10"),
        (changed(end=10), 'end must lie behind begin'),
        (changed(begin='10'), 'whole numbers'),
        (changed(images=dict(unlabelled=2)), 'no labelled images'),
        (changed(images=dict(labelled=2, unlabeled=2)), "did you mean 'unlabelled'"),
        (changed(images=dict(labelled=-1)), 'whole number from 0'),
        (changed(loss_weights=dict(unsup=1.0)), "unknown 'unsup'"),
        (changed(loss_weights=dict(unlabelled=float('nan'))), 'finite numbers'),
        (changed(thresholds=dict(target_precision=1.5)), 'between 0 and 1'),
        (changed(thresholds=dict(drop=0.1)), 'fixes drop=0.1 without keep'),
        (changed(threshold=dict()), "did you mean 'thresholds'"),
    ],
)
def test_wrong_stages_are_named_with_the_cure(stages, message):
    with pytest.raises(UserError, match=message):
        StageSchedule(stages)


def test_an_unknown_stage_is_answered_with_those_declared():
    with pytest.raises(UserError, match="did you mean 'joint'.*burn_in, joint"):
        StageSchedule(TWO).named('joinnt')
