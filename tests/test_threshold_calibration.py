"""What thresholds are calibrated on: images nobody learnt by heart, and boxes that count."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from test_training import STAGES, tiny_run  # noqa: F401  (a fixture)

from mmdsym.engine.hooks.pseudo_label_monitor_hook import boxes_per_image
from mmdsym.engine.hooks.threshold_calibration_hook import (
    _boxes_worth_one,
    judge_images,
    predict_labelled,
)
from mmdsym.errors import UserError
from mmdsym.evaluation import TrueBoxes

RIGHT, REST, BOTH, FALSE = [0, 0, 10, 10], [30, 0, 40, 10], [30, 0, 39, 10], [60, 60, 70, 70]


def boxes(*corners: list[int], labels: list[int]) -> InstanceData:
    return InstanceData(
        bboxes=torch.tensor(corners, dtype=torch.float).reshape(-1, 4), labels=torch.tensor(labels)
    )


class Teacher:
    """Finds the same boxes on every image."""

    def __init__(self, found: InstanceData) -> None:
        self.found = found

    def data_preprocessor(self, batch: dict, training: bool) -> dict:
        assert not training
        return batch

    def predict_with_teacher(self, inputs, samples: list) -> list[InstanceData]:
        return [self.found[:] for _ in samples]


def judged(found: InstanceData, truth: InstanceData, ignored: InstanceData | None):
    sample = DetDataSample(gt_instances=truth)
    if ignored is not None:
        sample.ignored_instances = ignored
    found.scores = torch.linspace(0.9, 0.5, len(found))
    labelled = predict_labelled(Teacher(found), [dict(inputs=None, data_samples=[sample])])
    return judge_images(labelled, [of_image.scores for of_image in labelled.predictions])


def test_what_lies_on_a_box_to_be_ignored_is_no_false_alarm():
    found = boxes(RIGHT, REST, FALSE, labels=[0, 0, 0])
    truth = boxes(RIGHT, labels=[0])
    assert judged(found, truth, None).correct.tolist() == [True, False, False]
    result = judged(found, truth, boxes(REST, labels=[0]))
    assert result.correct.tolist() == [True, False]
    assert result.scores.tolist() == pytest.approx([0.9, 0.5])
    # The rest of another class excuses nothing, and a true box beside a rest still counts.
    assert len(judged(found, truth, boxes(REST, labels=[1])).correct) == 3
    beside = judged(found, boxes(RIGHT, BOTH, labels=[0, 0]), boxes(REST, labels=[0]))
    assert beside.correct.tolist() == [True, True, False]


def test_images_without_any_box_are_judged():
    none = boxes(labels=[])
    assert len(judged(boxes(labels=[]), none, boxes(REST, labels=[0])).correct) == 0
    assert judged(boxes(REST, labels=[0]), none, boxes(REST, labels=[0])).correct.tolist() == []
    truth = TrueBoxes.none()
    assert truth.countable(torch.rand(3, 4), torch.zeros(3, dtype=torch.long)).all()


def test_one_box_of_the_rarest_class_is_worth_most():
    assert _boxes_worth_one(np.array([60, 60, 60, 60, 3])) == 15
    assert _boxes_worth_one(np.array([60, 0, 20])) == 40
    assert _boxes_worth_one(np.zeros(3, dtype=int)) == 0


def test_the_labelled_density_leaves_out_what_is_ignored():
    instances = [dict(bbox_label=0), dict(bbox_label=1, ignore_flag=1), dict(bbox_label=1)]

    class Data(list):
        metainfo = dict(classes=('dent', 'spot'))

        def get_data_info(self, index: int) -> dict:
            return self[index]

    data = Data([dict(instances=instances), dict(instances=[])])
    assert boxes_per_image(data).tolist() == [0.5, 0.5]


def test_images_learnt_by_heart_change_no_threshold(tiny_run, tmp_path):  # noqa: F811
    joint = 'train_cfg.stages.joint'
    precision = {f'{joint}.thresholds': dict(_delete_=True, target_precision=0.5)}
    runner = tiny_run(tmp_path / 'run', **{f'{joint}.images.calibration': 1}, **precision)
    seen: list[int] = []
    hook = next(h for h in runner._hooks if type(h).__name__ == 'ThresholdCalibrationHook')
    predict = hook._predict
    hook._predict = lambda runner: (seen.append(runner.iter), predict(runner))[1]
    runner.train()
    # Of joint the first iteration alone comes before such an image is trained on.
    assert seen == [STAGES['joint']['begin']]
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert "Stage 'refine' keeps the thresholds of the stage before" in log


def test_images_learnt_before_they_served_are_refused(tiny_run, tmp_path):  # noqa: F811
    early = {'train_cfg.stages.burn_in.images.calibration': 1}
    with pytest.raises(UserError, match="'burn_in' trains on the calibration images before"):
        tiny_run(tmp_path / 'run', **early).train()
