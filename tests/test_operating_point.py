"""The scores from which a deployed detector's boxes are shown."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmdsym.evaluation import KEEP_NOTHING, JudgedDetections, best_f1_thresholds


def judged(*boxes: tuple[float, int, bool]) -> JudgedDetections:
    scores, labels, correct = zip(*boxes, strict=True)
    return JudgedDetections(np.array(scores), np.array(labels), np.array(correct))


def f1_from(found: JudgedDetections, threshold: float, true_boxes: int) -> float:
    kept = found.scores >= threshold
    return 2 * found.correct[kept].sum() / (kept.sum() + true_boxes)


@given(hnp.arrays(float, 30, elements=st.sampled_from(np.linspace(0.05, 1, 20))), st.data())
def test_no_other_threshold_has_a_better_f1(scores, data):
    correct = data.draw(hnp.arrays(bool, 30))
    true_boxes = int(correct.sum()) + data.draw(st.integers(0, 10))
    found = JudgedDetections(scores, np.zeros(30, dtype=int), correct)
    (threshold,) = best_f1_thresholds(found, np.array([true_boxes]))
    if not correct.any():
        assert threshold == KEEP_NOTHING
        return
    best = max(f1_from(found, other, true_boxes) for other in scores)
    assert f1_from(found, threshold, true_boxes) == pytest.approx(best)


def test_a_threshold_lies_halfway_to_the_next_score():
    found = judged((0.9, 0, True), (0.6, 0, True), (0.2, 0, False))
    assert best_f1_thresholds(found, np.array([2])).tolist() == pytest.approx([0.4])


def test_equal_scores_stay_together():
    found = judged((0.8, 0, True), (0.5, 0, True), (0.5, 0, False), (0.5, 0, False))
    (threshold,) = best_f1_thresholds(found, np.array([1]))
    assert threshold == pytest.approx(0.65), 'one of three equal ones cannot be had alone'


def test_a_class_of_which_little_was_seen_follows_the_others():
    many = [(0.5, 0, True)] * 40 + [(0.3, 0, False)] * 40
    few = [(0.9, 1, True), (0.5, 1, False), (0.3, 1, False)]
    found = judged(*many, *few)
    counts = np.array([40, 1])
    alone = best_f1_thresholds(found, counts, prior_boxes=0.0)
    drawn = best_f1_thresholds(found, counts, prior_boxes=100.0)
    assert alone.tolist() == pytest.approx([0.4, 0.7])
    assert drawn.tolist() == pytest.approx([0.4, 0.4])


def test_a_class_without_a_right_box_gets_the_threshold_of_all():
    found = judged((0.8, 0, True), (0.2, 0, False), (0.7, 1, False))
    first, second, third = best_f1_thresholds(found, np.array([1, 3, 0]))
    assert first == pytest.approx(0.5)
    assert second == third == pytest.approx(0.75)
    assert (best_f1_thresholds(judged((0.9, 0, False)), np.array([2])) == KEEP_NOTHING).all()
