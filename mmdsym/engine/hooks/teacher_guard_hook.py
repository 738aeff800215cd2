"""Watches that unlabelled images do not make the teacher worse than labels alone had made it."""

from __future__ import annotations

from dataclasses import asdict
from math import isnan
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdsym.registry import HOOKS
from mmdsym.teacher_record import TEACHER_GUARD_STATE, TeacherRecord

from .stage_hook import dsym_model
from .threshold_calibration_hook import TEACHER_ON_CALIBRATION

# The images are the same each time: a box that is lost once stays lost, however patient one is.
_BOXES_THAT_MAY_FLIP = 2


@HOOKS.register_module()
class TeacherGuardHook(Hook):
    """Keeps the best teacher, and lowers the unsupervised weight where the teacher falls.

    Whenever :class:`mmdsym.engine.ThresholdCalibrationHook` judges the teacher on the calibration
    images, which are labelled and held out, its mAP@0.5 is compared with the first one, that of
    the end of burn_in. A run that fell below it has passed in silence elsewhere (EfficientTeacher
    #18, mmdetection #10200). The validation images have no say. Once a stage trains on the
    calibration images, they are no judge any more, and this hook rests.

    Args:
        margin: Fall below the level that counts, in units of mAP: smaller ones are noise. Where
            there are few calibration images, it is at least what two boxes of their rarest class
            are worth.
        patience: Judgements in a row below the level after which the weight is lowered; it is
            lowered again after as many more.
        shrink: What the unsupervised weight is multiplied by then, in [0, 1).
    """

    # After the judge, wherever both stand in the config.
    priority = 'BELOW_NORMAL'

    def __init__(self, margin: float = 0.01, patience: int = 2, shrink: float = 0.5) -> None:
        self.margin = margin
        self.patience = patience
        self.shrink = shrink
        self.record: TeacherRecord | None = None

    def before_train(self, runner: Runner) -> None:
        """Goes on with the share of an interrupted run."""
        if self.record is None:
            return
        dsym_model(runner).set_unsupervised_share(self.record.share)
        if not (Path(runner.work_dir) / self.record.best_checkpoint).is_file():
            # What cannot be deployed is not the best: the next one judged is.
            self.record.best, self.record.best_iteration = -1.0, -1

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Takes note of a new judgement."""
        nothing = -1, 0.0, 0
        iteration, map50, boxes = runner.message_hub.get_info(TEACHER_ON_CALIBRATION, nothing)
        if iteration == runner.iter and not isnan(map50):
            self._note(runner, map50, boxes)

    def after_train(self, runner: Runner) -> None:
        """Says which teacher was best, and what to do where it was not the last."""
        if self.record is None:
            return
        words = self.record.in_words
        if self._fell() and self.record.best_iteration >= 0:
            checkpoint = Path(runner.work_dir) / self.record.best_checkpoint
            runner.logger.warning(
                f'Judged {words}: the unlabelled images likely did harm, so deploy the best one '
                f'(tools/export_detector.py {checkpoint} --out FOLDER).'
            )
        else:
            runner.logger.info(f'Judged {words}.')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adds the record."""
        if self.record is not None:
            checkpoint[TEACHER_GUARD_STATE] = asdict(self.record)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remembers the record, for a run that is resumed; another one starts anew."""
        state = checkpoint.get(TEACHER_GUARD_STATE)
        if runner._resume and state:  # the runner tells nobody else
            self.record = TeacherRecord(**state)

    def _fell(self) -> bool:
        noise = _BOXES_THAT_MAY_FLIP / self.record.boxes if self.record.boxes else 0.0
        return self.record.last < self.record.level - max(self.margin, noise)

    def _note(self, runner: Runner, map50: float, boxes: int) -> None:
        iteration = runner.iter
        if self.record is None:
            self.record = TeacherRecord(
                map50, iteration, map50, iteration, map50, iteration, boxes=boxes
            )
            runner.logger.info(
                f'The teacher begins with {map50:.3f} mAP@0.5 on the calibration images: whether '
                'unlabelled images help is measured against that.'
            )
            self._keep_best(runner)
            return
        record = self.record
        record.last, record.last_iteration = map50, iteration
        record.falls = record.falls + 1 if self._fell() else 0
        lowers = record.falls == self.patience
        if lowers:
            record.falls, record.share = 0, record.share * self.shrink
            dsym_model(runner).set_unsupervised_share(record.share)
        if map50 > record.best:
            record.best, record.best_iteration = map50, iteration
            self._keep_best(runner)
        if lowers:
            runner.logger.warning(
                f'The teacher has been below its burn_in level on the calibration images for '
                f'{self.patience} judgements in a row ({map50:.3f} against {record.level:.3f} '
                f'mAP@0.5), so that pseudo-labels likely do harm: the unsupervised loss counts '
                f'{record.share:g} times its weight from now on, and the best teacher is kept as '
                f'{record.best_checkpoint}.'
            )

    def _keep_best(self, runner: Runner) -> None:
        folder, name = Path(runner.work_dir), self.record.best_checkpoint
        runner.save_checkpoint(
            str(folder),
            name,
            save_optimizer=False,
            save_param_scheduler=False,
            # By itself the runner counts the iteration that has not begun yet.
            meta=dict(epoch=0, iter=runner.iter),
        )
        if is_main_process():
            # After the new one is there, so that there is always one.
            for path in folder.glob('best_teacher_iter_*.pth'):
                if path.name != name:
                    path.unlink()
