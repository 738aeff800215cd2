"""Fusion of evidence: calibrated, careful with few boxes, and deaf to what adds nothing."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmdsym.clip import Fusion, JudgedEvidence
from mmdsym.clip.fit_together import ImageRows, fit_together
from mmdsym.clip.logistic import (
    average_precision,
    fit_linear,
    fit_logistic,
    log_loss,
    recalibrate,
)

KINDS = dict(teacher=[0], good=[1], noise=[2, 3])


def judged_boxes(count=800, seed=0, images=80):
    """Boxes whose rightness follows the teacher's score and the second column."""
    random = np.random.default_rng(seed)
    evidence = random.normal(size=(count, 4))
    odds = evidence[:, 0] + 1.5 * evidence[:, 1] - 0.5
    correct = random.random(count) < 1 / (1 + np.exp(-odds))
    return evidence, random.integers(0, 2, count), correct, random.integers(0, images, count)


def fusion():
    return Fusion(KINDS, num_classes=2)


def further_boxes(seed=7, lucky=0.0):
    """Boxes of training images; their scores are better than they would be elsewhere."""
    evidence, labels, correct, _ = judged_boxes(3000, seed)
    evidence[:, 0] += lucky * correct
    return JudgedEvidence(evidence, labels, correct)


def test_it_is_better_than_the_teacher_and_drops_noise():
    fused = fusion()
    out_of_fold = fused.fit(*judged_boxes())
    assert fused.kept_kinds == ('teacher', 'good')
    assert fused.report.log_loss < fused.report.prior_log_loss - 0.05
    assert fused.report.ap > fused.report.prior_ap + 0.05
    evidence, labels, correct, _ = judged_boxes(seed=1)
    assert log_loss(fused(evidence, labels), correct) < 0.5
    assert out_of_fold.shape == (800,)
    kinds = {kind.kind: kind for kind in fused.report.kinds}
    assert kinds['good'].kept and kinds['good'].gain > 0.05
    assert not kinds['noise'].kept
    assert any("'noise' adds nothing" in line for line in fused.report.lines())


def test_probabilities_are_calibrated():
    fused = fusion()
    fused.fit(*judged_boxes(3000))
    evidence, labels, correct, _ = judged_boxes(3000, seed=1)
    probabilities = fused(evidence, labels)
    for low in np.arange(0, 1, 0.25):
        inside = (probabilities >= low) & (probabilities < low + 0.25)
        assert probabilities[inside].mean() == pytest.approx(correct[inside].mean(), abs=0.06)


def test_out_of_fold_probabilities_do_not_know_their_image():
    """Evidence that merely names the right boxes of an image must not help."""
    random = np.random.default_rng(0)
    images = np.repeat(np.arange(60), 5)
    evidence = np.zeros((300, 4))
    evidence[:, 0] = random.normal(size=300)
    correct = random.random(60)[images] < 0.5
    evidence[:, 1] = images * 0.37 % 1
    out_of_fold = fusion().fit(evidence, np.zeros(300, dtype=int), correct, images)
    assert log_loss(out_of_fold, correct) > 0.67


def test_tiles_of_an_image_do_not_judge_each_other():
    random = np.random.default_rng(0)
    seen: list = []

    class Remembers(Fusion):
        def fit(self, evidence, labels, correct, image_ids, further=None):
            seen.extend(image_ids)
            return super().fit(evidence, labels, correct, image_ids, further)

    names = [f'a/{part}__x{x:05d}_y00000.png' for part in 'pq' for x in (0, 100)] + ['a/r.png']
    rows = [
        ImageRows(random.normal(size=(2, 4)), np.zeros(2, int), random.random(2) < 0.5, name)
        for name in names
    ]
    parts = fit_together(Remembers(KINDS, 1), rows)
    assert [len(part) for part in parts] == [2] * 5
    assert seen == np.repeat(['a/p', 'a/p', 'a/q', 'a/q', 'a/r.png'], 2).tolist()


@given(st.integers(0, 19), st.integers(0, 40))
def test_too_few_boxes_leave_the_teachers_score(right, wrong):
    count = right + wrong
    evidence = np.linspace(-2, 2, 4 * count).reshape(count, 4)
    correct = np.arange(count) < right
    fused = fusion()
    scores = fused.fit(evidence, np.zeros(count, dtype=int), correct, np.arange(count))
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-evidence[:, 0])))
    np.testing.assert_allclose(fused(evidence, np.zeros(count, dtype=int)), scores)
    assert fused.kept_kinds == ('teacher',)
    assert 'keep the score of the teacher' in fused.report.lines()[0]


def test_boxes_of_one_image_cannot_be_cross_validated():
    evidence, labels, correct, _ = judged_boxes()
    fused = fusion()
    scores = fused.fit(evidence, labels, correct, np.zeros(len(correct)))
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-evidence[:, 0])))


@functools.cache
def fitted(turned, helped):
    evidence, labels, correct, images = judged_boxes(200)
    if turned:
        evidence[:, 0] *= -1  # a teacher that is worse than chance
    fused = fusion()
    fused.fit(evidence, labels, correct, images, further_boxes() if helped else None)
    return fused


@given(st.booleans(), st.booleans(), st.floats(-8, 8), st.floats(0.0, 8))
def test_a_better_teacher_score_is_never_worth_less(turned, helped, score, step):
    fused = fitted(turned, helped)
    low = np.array([[score, 0.3, -1.0, 2.0]])
    high = low + np.array([[step, 0, 0, 0]])
    assert fused(high, [1]) >= fused(low, [1])


def weak_evidence(count, seed):
    """Fifteen columns of which each says little."""
    random = np.random.default_rng(seed)
    evidence = random.normal(size=(count, 16))
    correct = random.random(count) < 1 / (1 + np.exp(-evidence @ np.linspace(1, 0.2, 16)))
    return evidence, np.zeros(count, dtype=int), correct


def test_boxes_of_training_images_help_where_few_are_held_out():
    held_out, fresh = weak_evidence(150, 0), weak_evidence(3000, 1)
    few, helped = (Fusion(dict(teacher=[0], weak=range(1, 16)), num_classes=1) for _ in range(2))
    few.fit(*held_out, np.arange(150) // 5)
    helped.fit(*held_out, np.arange(150) // 5, JudgedEvidence(*weak_evidence(3000, 2)))
    assert helped.report.further == 3000 and not few.report.further
    assert '3000 boxes' in helped.report.lines()[1]
    loss = [log_loss(fused(*fresh[:2]), fresh[2]) for fused in (few, helped)]
    assert loss[1] < loss[0] - 0.01


def test_misleading_boxes_of_training_images_are_left_out():
    further = further_boxes()
    misleading = JudgedEvidence(further.evidence, further.labels, ~further.correct)
    fused, alone = fusion(), fusion()
    fused.fit(*judged_boxes(), misleading)
    alone.fit(*judged_boxes())
    assert not fused.report.further
    np.testing.assert_array_equal(fused(*judged_boxes()[:2]), alone(*judged_boxes()[:2]))


def test_bias_and_slope_come_from_held_out_images():
    evidence, labels, correct, images = judged_boxes(200, images=40)
    fused = fusion()
    fused.fit(evidence, labels, correct, images, further_boxes(lucky=0.5))
    assert fused.report.further
    assert fused(evidence, labels).mean() == pytest.approx(correct.mean(), abs=0.03)


def test_recalibration_mends_slope_and_bias():
    evidence, labels, correct, _ = judged_boxes(2000)
    model = fit_linear(evidence, labels, correct, 2, 1.0, 10.0)
    sure = replace(model, weights=3 * model.weights, bias=3 * model.bias + 2)
    mended = recalibrate(sure, evidence, labels, correct)
    loss = [
        log_loss(1 / (1 + np.exp(-m.odds(evidence, labels))), correct)
        for m in (model, sure, mended)
    ]
    assert loss[1] > loss[0] + 0.1 and loss[2] < loss[0] + 0.01
    worthless = recalibrate(model, evidence, labels, ~correct)
    odds = worthless.odds(evidence, labels)
    assert (worthless.weights == 0).all()
    assert 1 / (1 + np.exp(-odds)) == pytest.approx(1 - correct.mean(), abs=0.01)


def test_the_same_boxes_give_the_same_result():
    first, second = fusion(), fusion()
    np.testing.assert_array_equal(first.fit(*judged_boxes()), second.fit(*judged_boxes()))
    state = {name: value.tolist() for name, value in first.state_dict().items()}
    assert state == {name: value.tolist() for name, value in second.state_dict().items()}


def test_state_comes_back():
    fused, restored = fusion(), fusion()
    fused.fit(*judged_boxes())
    restored.load_state_dict(fused.state_dict())
    evidence, labels, *_ = judged_boxes(seed=2)
    np.testing.assert_array_equal(restored(evidence, labels), fused(evidence, labels))
    assert restored.kept_kinds == fused.kept_kinds
    other = Fusion(dict(teacher=[0, 1]), num_classes=2)
    with pytest.raises(ValueError, match='must have shapes'):
        other.load_state_dict(fused.state_dict())
    assert all(isinstance(value, torch.Tensor) for value in fused.state_dict().values())


def test_odd_evidence_gives_a_probability():
    fused = fusion()
    fused.fit(*judged_boxes())
    odd = np.array([[np.nan, np.inf, 0, 0], [1e9, -1e9, 0, 0], [-np.inf, 0, 0, 0]])
    probabilities = fused(odd, [0, 1, 0])
    assert np.isfinite(probabilities).all()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert fused(np.zeros((0, 4)), np.zeros(0, dtype=int)).shape == (0,)


def test_dropped_kinds_need_not_be_computed():
    fused = fusion()
    fused.fit(*judged_boxes())
    evidence, labels, *_ = judged_boxes(seed=2)
    blank = evidence.copy()
    blank[:, 2:] = 0
    np.testing.assert_array_equal(fused(evidence, labels), fused(blank, labels))


def test_many_classes_and_one_class():
    evidence, _, correct, images = judged_boxes()
    many = Fusion(KINDS, num_classes=200, folds=2, strengths=(10.0,))
    assert np.isfinite(many.fit(evidence, np.arange(800) % 200, correct, images)).all()
    one = Fusion(KINDS, num_classes=1)
    one.fit(evidence, np.zeros(800, dtype=int), correct, images)
    assert one.report.log_loss < one.report.prior_log_loss


def test_newton_finds_the_minimum():
    evidence, _, correct, _ = judged_boxes()
    penalty = np.full(4, 2.0)
    weights = fit_logistic(evidence, correct, penalty)
    gradient = evidence.T @ (1 / (1 + np.exp(-evidence @ weights)) - correct) + penalty * weights
    np.testing.assert_allclose(gradient, 0, atol=1e-4)
    separable = fit_logistic(evidence, evidence[:, 0] > 0, penalty)
    assert np.isfinite(separable).all()


def test_average_precision_of_a_perfect_and_a_reversed_order():
    correct = np.array([True, True, False, False])
    assert average_precision(np.array([4, 3, 2, 1]), correct) == 1
    assert average_precision(np.array([1, 2, 3, 4]), correct) == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert np.isnan(average_precision(np.zeros(2), np.zeros(2, dtype=bool)))
