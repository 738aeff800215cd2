"""Chooses the score thresholds of pseudo-labels, so that nobody has to tune them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import Tensor
from torch.utils.data import DataLoader

from mmdsym.errors import UserError
from mmdsym.evaluation import (
    JudgedDetections,
    TrueBoxes,
    best_f1_thresholds,
    cover_thresholds,
    doubt_threshold,
    judge_detections,
    keep_thresholds,
    mean_average_precision,
)
from mmdsym.models import CalibratedScorer, DSYMDetector, LabelledPredictions
from mmdsym.registry import HOOKS
from mmdsym.stages import Stage
from mmdsym.trained_run import OWN_THRESHOLDS

from .stage_hook import dsym_model

TEACHER_ON_CALIBRATION = 'teacher_on_calibration'
"""Under which name the message hub has the teacher's last judgement: iteration, mAP@0.5, and how
many boxes of the rarest class would move mAP by 1 (classes times its true boxes)."""


@HOOKS.register_module()
class ThresholdCalibrationHook(Hook):
    """Calibrates per-class thresholds on labelled images that did not train the detector.

    When a stage with unlabelled images begins, and every ``interval`` iterations of it, the
    teacher judges the calibration images; the thresholds become the lowest scores with which
    the stage's target precision is met. Once a stage trains on the calibration images, its
    thresholds stay as they are, since what the detector has learnt by heart proves nothing.

    From the same boxes, by the teacher's own scores, follow its mAP@0.5, which is logged and told
    to other hooks (:data:`TEACHER_ON_CALIBRATION`), and the scores with the best F1, which go into
    the checkpoint, since they are those of the deployed detector: pseudo-labels must be right, but
    who inspects must miss little as well. Both until a stage has trained on these images.

    A scorer that learns (:class:`mmdsym.models.CalibratedScorer`) is fitted on the same images at
    the same time, and the thresholds come from scores that it gave to images held out of the fit.

    Args:
        dataloader: The calibration images, with ground truth and the test pipeline.
        further_dataloader: Labelled images that train the detector, likewise. A scorer that wants
            them gets the teacher's boxes on them when a stage begins.
        interval: Iterations between two calibrations.
    """

    def __init__(
        self, dataloader: dict, further_dataloader: dict | None = None, interval: int = 200
    ) -> None:
        self.dataloader: dict | DataLoader = dataloader
        self.further_dataloader: dict | DataLoader | None = further_dataloader
        self.interval = interval
        self.own_thresholds: list[float] | None = None

    def before_train(self, runner: Runner) -> None:
        """Reads the annotations, so that the run does not stop hours later over a changed file.

        Raises:
            UserError: A stage trains on the calibration images before they have served.
        """
        stages = runner.train_loop.schedule.stages
        if any(stage.uses_teacher and not stage.thresholds.fixed for stage in stages):
            _refuse_early_training(stages)
            self.dataloader = _built(runner, self.dataloader)
            if self.further_dataloader is not None:
                self.further_dataloader = _built(runner, self.further_dataloader)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adds the thresholds of the deployed detector."""
        if self.own_thresholds is not None:
            checkpoint[OWN_THRESHOLDS] = self.own_thresholds

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remembers them, for a run that is resumed; another one starts anew."""
        if runner._resume:  # the runner tells nobody else
            self.own_thresholds = checkpoint.get(OWN_THRESHOLDS)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Calibrates where it is due."""
        stage = runner.train_loop.stage
        if not stage.uses_teacher or (runner.iter - stage.begin) % self.interval:
            return
        if stage.thresholds.fixed and runner.iter == stage.begin:
            _fix(runner, stage)
        if _learnt_by_heart(runner):
            if runner.iter == stage.begin and not stage.thresholds.fixed:
                runner.logger.warning(
                    f"Stage '{stage.name}' keeps the thresholds of the stage before: the "
                    'calibration images have been trained on, and prove nothing any more.'
                )
            return
        found = self._predict(runner)
        self._judge_teacher(runner, found)
        if not stage.thresholds.fixed:
            self._calibrate(runner, stage, found)
        elif runner.iter == stage.begin and isinstance(dsym_model(runner).scorer, CalibratedScorer):
            self._score(runner, found)

    def _calibrate(self, runner: Runner, stage: Stage, found: LabelledPredictions) -> None:
        """Sets the thresholds on all ranks."""
        judged = judge_images(found, self._score(runner, found))
        judged = JudgedDetections.concatenate(all_gather_object(judged))
        model = dsym_model(runner)
        policy = stage.thresholds
        covering = cover_thresholds(judged, model.num_classes, policy.covered_recall)
        model.set_thresholds(
            keep_thresholds(judged, model.num_classes, policy.target_precision),
            np.maximum(covering, doubt_threshold(judged, policy.least_precision)),
        )
        self._log(runner, stage)

    def _judge_teacher(self, runner: Runner, found: LabelledPredictions) -> None:
        judged = judge_images(found, [boxes.teacher_scores for boxes in found.predictions])
        labels = [truth.labels.cpu().numpy() for truth in found.truths]
        counts = np.bincount(
            np.concatenate([*labels, np.zeros(0, dtype=int)]),
            minlength=dsym_model(runner).num_classes,
        )
        parts = all_gather_object((judged, counts))
        judged = JudgedDetections.concatenate([judged for judged, _ in parts])
        true_boxes = sum(counts for _, counts in parts)
        map50 = mean_average_precision(judged, true_boxes)
        self.own_thresholds = best_f1_thresholds(judged, true_boxes).tolist()
        judgement = runner.iter, map50, _boxes_worth_one(true_boxes)
        runner.message_hub.update_info(TEACHER_ON_CALIBRATION, judgement, resumed=False)
        runner.visualizer.add_scalars({'calibration/teacher_mAP_50': map50}, step=runner.iter)

    def _predict(self, runner: Runner) -> LabelledPredictions:
        self.dataloader = _built(runner, self.dataloader)
        return predict_labelled(dsym_model(runner), self.dataloader)

    def _score(self, runner: Runner, found: LabelledPredictions) -> list[Tensor]:
        scorer = dsym_model(runner).scorer
        if scorer is None:
            return [boxes.scores for boxes in found.predictions]
        if isinstance(scorer, CalibratedScorer):
            # Scores of boxes that the scorer has learnt from would flatter it.
            return scorer.fit(*found, further=self._predict_further(runner, scorer))
        return scorer(found.predictions, found.images)

    def _predict_further(
        self, runner: Runner, scorer: CalibratedScorer
    ) -> LabelledPredictions | None:
        # They serve for the whole stage: there are many of them, and they change little.
        begins = runner.iter == runner.train_loop.stage.begin
        if not begins or self.further_dataloader is None or not scorer.wants_further:
            return None
        self.further_dataloader = _built(runner, self.further_dataloader)
        return predict_labelled(dsym_model(runner), self.further_dataloader)

    def _log(self, runner: Runner, stage: Stage) -> None:
        model = dsym_model(runner)
        classes = runner.train_dataloader.dataset.metainfo['classes']
        keep, drop = model.keep_thresholds.tolist(), model.drop_thresholds.tolist()
        values = ', '.join(
            f'{name} {low:.2f}/{high:.2f}' if high <= 1 else f'{name} none kept'
            for name, low, high in zip(classes, drop, keep, strict=True)
        )
        runner.logger.info(
            f'Thresholds (drop below / keep from) for a precision of '
            f'{stage.thresholds.target_precision:g}: {values}.'
        )
        scalars = {f'threshold/keep_{name}': high for name, high in zip(classes, keep, strict=True)}
        scalars |= {f'threshold/drop_{name}': low for name, low in zip(classes, drop, strict=True)}
        runner.visualizer.add_scalars(scalars, step=runner.iter)


def _fix(runner: Runner, stage: Stage) -> None:
    model = dsym_model(runner)
    keep = stage.thresholds.keep
    drop = keep if stage.thresholds.drop is None else stage.thresholds.drop
    model.set_thresholds([keep] * model.num_classes, [drop] * model.num_classes)


def _refuse_early_training(stages: Sequence[Stage]) -> None:
    first = next((index for index, stage in enumerate(stages) if stage.uses_teacher), 0)
    for stage in stages[:first]:
        if stage.images.get('calibration'):
            raise UserError(
                f"stage '{stage.name}' trains on the calibration images before stage "
                f"'{stages[first].name}' calibrates with them: set images.calibration of "
                f"'{stage.name}' to 0, since what is learnt by heart proves nothing."
            )


def _learnt_by_heart(runner: Runner) -> bool:
    """Whether a stage has trained on the calibration images."""
    stages = runner.train_loop.schedule.stages
    return any(s.images.get('calibration') for s in stages if s.begin < runner.iter)


def _boxes_worth_one(true_boxes: np.ndarray) -> int:
    """So many boxes of the rarest class would move mAP by one, were there as many."""
    present = true_boxes[true_boxes > 0]
    return int(len(present) * present.min()) if len(present) else 0


def judge_images(found: LabelledPredictions, scores: list[Tensor]) -> JudgedDetections:
    """Matches the boxes of labelled images with their ground truth.

    Args:
        found: Boxes and ground truth of each image.
        scores: For each image, those that the boxes are ranked by.
    """
    return JudgedDetections.concatenate(
        [
            judge_detections(boxes.bboxes, score, boxes.labels, truth.bboxes, truth.labels)
            for boxes, score, truth in zip(found.predictions, scores, found.truths, strict=True)
        ]
    )


def _truth_of(sample: DetDataSample) -> TrueBoxes:
    truth, ignored = sample.gt_instances, sample.get('ignored_instances', InstanceData())
    if not len(ignored):
        return TrueBoxes(truth.bboxes, truth.labels, torch.zeros_like(truth.labels).bool())
    labels = torch.cat([truth.labels, ignored.labels])
    is_ignored = torch.arange(len(labels), device=labels.device) >= len(truth.labels)
    return TrueBoxes(torch.cat([truth.bboxes, ignored.bboxes]), labels, is_ignored)


def _built(runner: Runner, dataloader: dict | DataLoader) -> DataLoader:
    return runner.build_dataloader(dataloader) if isinstance(dataloader, dict) else dataloader


@torch.no_grad()
def predict_labelled(model: DSYMDetector, dataloader: DataLoader) -> LabelledPredictions:
    """Returns what the teacher finds on labelled images, in the frame of the original images.

    What it finds on boxes to be ignored (COCO's ``iscrowd``, such as rests of defects at the border
    of a tile) is left out: training had ignored it, so that it is no false alarm.

    Args:
        model: With the teacher.
        dataloader: Images with ground truth in their original frame: the pipeline loads it last.
    """
    predictions, samples = [], []
    for batch in dataloader:
        data = model.data_preprocessor(batch, training=False)
        found = model.predict_with_teacher(data['inputs'], data['data_samples'])
        for boxes, sample in zip(found, data['data_samples'], strict=True):
            predictions.append(boxes[_truth_of(sample).countable(boxes.bboxes, boxes.labels)])
            samples.append(sample)
    return LabelledPredictions(predictions, samples, [sample.gt_instances for sample in samples])
