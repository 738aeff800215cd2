"""Thresholds follow the target precision, never the other way round."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdsym.evaluation import (
    KEEP_NOTHING,
    JudgedDetections,
    cover_thresholds,
    doubt_threshold,
    judge_detections,
    keep_thresholds,
    mean_average_precision,
)

COUNT = 40
detections = st.builds(
    JudgedDetections,
    hnp.arrays(float, COUNT, elements=st.floats(0, 1)),
    hnp.arrays(int, COUNT, elements=st.integers(0, 2)),
    hnp.arrays(bool, COUNT),
)


@given(detections, st.floats(0, 1), st.floats(0, 1))
def test_thresholds_are_monotone_in_the_target_precision(judged, one, other):
    low, high = sorted((one, other))
    assert (keep_thresholds(judged, 3, low) <= keep_thresholds(judged, 3, high)).all()


@given(detections, st.floats(0, 1), st.floats(0, 1))
def test_doubt_is_monotone_in_the_least_precision(judged, one, other):
    low, high = sorted((one, other))
    assert doubt_threshold(judged, low) <= doubt_threshold(judged, high)


def test_doubt_begins_where_boxes_are_right_often_enough():
    scores = np.repeat([0.1, 0.3, 0.6], 100)
    correct = np.concatenate([np.arange(100) < share for share in (2, 15, 70)])
    judged = JudgedDetections(scores, np.arange(300) % 3, correct)
    found = [doubt_threshold(judged, least) for least in (0.0, 0.1, 0.5, 0.9)]
    assert found == [0.1, 0.3, 0.6, KEEP_NOTHING]


def test_without_detections_nothing_is_in_doubt():
    empty = JudgedDetections(np.zeros(0), np.zeros(0, dtype=int), np.zeros(0, dtype=bool))
    assert doubt_threshold(empty, 0.1) == KEEP_NOTHING


@given(detections, st.floats(0.1, 1))
def test_without_prior_the_target_precision_is_met(judged, target):
    thresholds = keep_thresholds(judged, 3, target, prior_boxes=0)
    for label in range(3):
        mine = judged.labels == label
        # Ties are kept together, so a threshold that cuts through them promises nothing.
        if not mine.any() or len(np.unique(judged.scores[mine])) < mine.sum():
            continue
        kept = mine & (judged.scores >= thresholds[label])
        if kept.any():
            assert judged.correct[kept].mean() >= target - 1e-9


@given(detections, st.floats(0, 1))
def test_cover_thresholds_cover(judged, recall):
    thresholds = cover_thresholds(judged, 3, recall)
    for label in range(3):
        right = judged.correct & (judged.labels == label)
        if right.any():
            covered = (judged.scores[right] >= thresholds[label]).mean()
            assert covered >= recall - 1e-9


def test_a_class_without_detections_follows_the_others():
    judged = JudgedDetections(np.linspace(1, 0, 20), np.zeros(20, dtype=int), np.arange(20) < 10)
    thresholds = keep_thresholds(judged, 2, 0.8)
    assert thresholds[1] == keep_thresholds(judged, 1, 0.8)[0] < KEEP_NOTHING


def test_a_hopeless_class_keeps_nothing():
    judged = JudgedDetections(np.full(30, 0.9), np.zeros(30, dtype=int), np.zeros(30, dtype=bool))
    assert keep_thresholds(judged, 1, 0.5)[0] == KEEP_NOTHING
    assert cover_thresholds(judged, 1, 0.9)[0] == KEEP_NOTHING


def test_each_true_box_takes_one_detection_of_its_class():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [50, 50, 60, 60]])
    judged = judge_detections(
        boxes,
        torch.tensor([0.6, 0.9, 0.95, 0.8]),
        torch.tensor([0, 0, 1, 0]),
        torch.tensor([[0.0, 0, 10, 10]]),
        torch.tensor([0]),
    )
    assert judged.correct.tolist() == [False, True, False, False]


def test_images_without_boxes_or_truth():
    none = torch.zeros(0, 4)
    nothing = torch.zeros(0, dtype=torch.long)
    box = torch.tensor([[0.0, 0, 10, 10]])
    false_alarm = judge_detections(box, torch.tensor([0.5]), torch.tensor([0]), none, nothing)
    assert false_alarm.correct.tolist() == [False]
    missed = judge_detections(none, torch.zeros(0), nothing, box, torch.tensor([0]))
    assert len(missed.scores) == 0


def test_mean_average_precision_is_that_of_coco():
    generator = np.random.default_rng(0)
    truth, found, parts, counts = [], [], [], np.zeros(3, dtype=int)
    for image in range(1, 21):
        corners = generator.uniform(0, 80, (6, 2))
        boxes = np.concatenate([corners, corners + generator.uniform(15, 40, (6, 2))], axis=1)
        labels = generator.integers(0, 2, 6)  # of the third class there is none
        shown = boxes + generator.uniform(-7, 7, boxes.shape)
        names = np.where(generator.random(6) < 0.8, labels, generator.integers(0, 3, 6))
        scores = generator.permutation(1000)[:6] / 1000 + image * 1e-5
        counts += np.bincount(labels, minlength=3)
        for box, label in zip(boxes, labels, strict=True):
            truth.append(as_coco(box, label, image) | dict(id=len(truth) + 1, iscrowd=0))
        for box, label, score in zip(shown, names, scores, strict=True):
            found.append(as_coco(box, label, image) | dict(score=score))
        tensors = (torch.tensor(array) for array in (shown, scores, names, boxes, labels))
        parts.append(judge_detections(*tensors))
    coco = COCO()
    coco.dataset = dict(
        images=[dict(id=image) for image in range(1, 21)],
        categories=[dict(id=label) for label in range(3)],
        annotations=truth,
    )
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(found), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    mine = mean_average_precision(JudgedDetections.concatenate(parts), counts)
    assert 0.2 < mine < 0.9
    assert mine == pytest.approx(evaluation.stats[1], abs=1e-6)


def as_coco(box: np.ndarray, label: int, image: int) -> dict:
    x1, y1, x2, y2 = box.tolist()
    size = (x2 - x1, y2 - y1)
    return dict(
        image_id=image, category_id=int(label), bbox=[x1, y1, *size], area=size[0] * size[1]
    )
