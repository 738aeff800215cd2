"""Thresholds follow the target precision, never the other way round."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmdsym.evaluation import (
    KEEP_NOTHING,
    JudgedDetections,
    cover_thresholds,
    judge_detections,
    keep_thresholds,
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
