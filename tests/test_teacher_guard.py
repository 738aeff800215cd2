"""A teacher that falls below what labels alone had made it is noticed, by calibration images."""

from __future__ import annotations

import logging
from math import nan
from pathlib import Path

import pytest
import torch
from test_training import scalars, tiny_run  # noqa: F401  (a fixture)

from mmdsym.engine import TeacherGuardHook
from mmdsym.engine.hooks.threshold_calibration_hook import TEACHER_ON_CALIBRATION
from mmdsym.teacher_record import TEACHER_GUARD_STATE
from mmdsym.trained_run import OWN_THRESHOLDS, find_checkpoint, load_run


class Model:
    share = 1.0

    def set_unsupervised_share(self, share: float) -> None:
        self.share = share


class Hub(dict):
    def get_info(self, name, default):
        return self.get(name, default)


class Runner:
    """As much of a runner as the hook asks for."""

    logger = logging.getLogger('guard-test')
    _resume = True

    def __init__(self, work_dir: Path) -> None:
        self.work_dir, self.model = str(work_dir), Model()
        self.message_hub, self.iter = Hub(), 0

    def save_checkpoint(self, folder, name, meta, **_):
        assert meta['iter'] == self.iter
        (Path(folder) / name).touch()


def judged(runner: Runner, hook: TeacherGuardHook, *values: float, boxes: int = 300) -> None:
    """Tells the hook the next judgements, 100 iterations apart, and lets iterations pass."""
    for value in values:
        runner.iter += 100
        runner.message_hub[TEACHER_ON_CALIBRATION] = (runner.iter, value, boxes)
        hook.before_train_iter(runner, 0)
        runner.iter += 1
        hook.before_train_iter(runner, 0)
        runner.iter -= 1


def kept(folder: Path) -> list[str]:
    return [path.name for path in folder.glob('*.pth')]


@pytest.fixture
def runner(tmp_path, caplog) -> Runner:
    caplog.set_level(logging.INFO, logger='guard-test')
    return Runner(tmp_path)


def test_a_teacher_that_stays_above_its_level_is_left_alone(runner, tmp_path, caplog):
    hook = TeacherGuardHook(margin=0.01, patience=2)
    judged(runner, hook, 0.70, 0.695, 0.72, 0.6, 0.71)
    hook.after_train(runner)
    assert runner.model.share == 1.0
    assert kept(tmp_path) == ['best_teacher_iter_300.pth']
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert 'was best with 0.720 (iteration 300, kept as best_teacher_iter_300.pth)' in caplog.text


def test_on_few_boxes_a_fall_of_two_is_noise(runner):
    hook = TeacherGuardHook(margin=0.01, patience=2)
    judged(runner, hook, 1.0, 0.92, 0.92, 0.92, 0.92, boxes=24)
    assert runner.model.share == 1.0
    judged(runner, hook, 0.91, 0.91, boxes=24)
    assert runner.model.share == 0.5


def test_one_that_falls_for_long_is_told_and_learns_less_from_it(runner, tmp_path, caplog):
    hook = TeacherGuardHook(margin=0.01, patience=2, shrink=0.5)
    judged(runner, hook, 0.70, 0.65, 0.66)
    assert runner.model.share == 0.5
    (warning,) = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert 'below its burn_in level' in warning and '0.660 against 0.700' in warning
    assert '0.5 times' in warning and 'best_teacher_iter_100.pth' in warning
    judged(runner, hook, 0.66)
    assert runner.model.share == 0.5, 'patience begins anew'
    judged(runner, hook, 0.66)
    assert runner.model.share == 0.25
    assert kept(tmp_path) == ['best_teacher_iter_100.pth']
    hook.after_train(runner)
    assert 'so deploy the best one' in caplog.records[-1].message


def test_images_without_a_box_judge_nobody(runner, tmp_path):
    hook = TeacherGuardHook()
    judged(runner, hook, nan, nan)
    hook.after_train(runner)
    assert hook.record is None and not kept(tmp_path)


def resumed(state: dict, runner: Runner, resumes: bool = True) -> TeacherGuardHook:
    hook = TeacherGuardHook(patience=2)
    runner.model, runner._resume = Model(), resumes
    hook.after_load_checkpoint(runner, state)
    hook.before_train(runner)
    return hook


def test_a_resumed_run_goes_on_with_level_share_and_best(runner, tmp_path):
    hook = TeacherGuardHook(patience=2)
    judged(runner, hook, 0.70, 0.60, 0.60, 0.60)
    state: dict = {}
    hook.before_save_checkpoint(runner, state)
    again = resumed(state, runner)
    assert again.record == hook.record and runner.model.share == 0.5
    judged(runner, again, 0.60)
    assert runner.model.share == 0.25
    # A run that only starts from these weights has a level of its own.
    assert resumed(state, runner, resumes=False).record is None
    assert runner.model.share == 1.0


def test_a_best_checkpoint_that_is_gone_is_not_named(runner, tmp_path, caplog):
    hook = TeacherGuardHook()
    judged(runner, hook, 0.70, 0.60)
    state: dict = {}
    hook.before_save_checkpoint(runner, state)
    (tmp_path / 'best_teacher_iter_100.pth').unlink()
    again = resumed(state, runner)
    again.after_train(runner)
    assert 'best' not in caplog.records[-1].message
    judged(runner, again, 0.65)
    assert kept(tmp_path) == ['best_teacher_iter_300.pth']


def test_a_run_is_judged_until_it_trains_on_the_calibration_images(tiny_run, tmp_path):  # noqa: F811
    runner = tiny_run(tmp_path / 'run')
    for hook in runner.hooks:
        if type(hook).__name__ == 'ThresholdCalibrationHook':
            hook.interval = 1
    runner.train()
    name = 'calibration/teacher_mAP_50'
    assert [line['step'] for line in scalars(tmp_path / 'run') if name in line] == [3, 4, 5, 6, 7]
    (best,) = (tmp_path / 'run').glob('best_teacher_iter_*.pth')
    state = torch.load(tmp_path / 'run/iter_9.pth', weights_only=True)[TEACHER_GUARD_STATE]
    assert state['last_iteration'] == 7 and state['level_iteration'] == 3
    assert best.name == f'best_teacher_iter_{state["best_iteration"]}.pth'
    run = load_run(best)
    assert run.checkpoint['meta']['iter'] == state['best_iteration']
    assert 'optimizer' not in run.checkpoint
    assert find_checkpoint(tmp_path / 'run').name == 'iter_9.pth', 'training goes on from the last'
    last = load_run(tmp_path / 'run')
    assert last.own_thresholds == last.checkpoint[OWN_THRESHOLDS]
    assert len(last.own_thresholds) == len(last.classes) and min(last.own_thresholds) > 0
    # The last iteration has no say, since it has learnt the calibration images.
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert 'The teacher begins with' in log and 'Judged on the calibration images' in log


def test_a_lower_share_lowers_the_unsupervised_loss(tiny_run, tmp_path):  # noqa: F811
    losses = {}
    for share in (1.0, 0.5):
        runner = tiny_run(tmp_path / f'share_{share}')
        runner.model.set_unsupervised_share(share)
        runner.train()
        lines = scalars(tmp_path / f'share_{share}')
        losses[share] = next(line['unsup_loss_cls'] for line in lines if 'unsup_loss_cls' in line)
    assert losses[0.5] == pytest.approx(0.5 * losses[1.0], rel=1e-3)
