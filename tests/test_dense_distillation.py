"""The teacher's scores at all places arrive at the same places of the student's views."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmdet.structures import DetDataSample
from test_detectors import DETECTORS, SIZE, backward, build, sample

from mmdsym.models.branch_losses import Branch, losses_of_branches
from mmdsym.models.dense_distillation import (
    PlaceScores,
    TeacherScores,
    distillation_loss,
    scores_densely,
    scores_in_view,
)
from mmdsym.stages import StageSchedule


def _sample(matrix, size=(64, 64)):
    return DetDataSample(metainfo=dict(homography_matrix=matrix, img_shape=size))


def _head(offset, strides):
    return SimpleNamespace(
        prior_generator=SimpleNamespace(
            center_offset=offset, strides=strides, num_base_priors=[1] * len(strides)
        )
    )


ORIENTATIONS = [
    np.eye(3),
    np.array([[-1.0, 0, 64], [0, 1, 0], [0, 0, 1]]),
    np.array([[1.0, 0, 0], [0, -1, 64], [0, 0, 1]]),
    np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]]),
]


@given(
    teacher=st.sampled_from(ORIENTATIONS),
    student=st.sampled_from(ORIENTATIONS),
    scale=st.floats(0.7, 1.4),
    shift=st.floats(-10, 10),
    offset=st.sampled_from([0.0, 0.5]),
)
def test_a_place_keeps_its_score_in_every_view(teacher, student, scale, shift, offset):
    """Scores that grow with the image's x and half its y do so in the student's view as well."""
    move = np.array([[scale, 0, shift], [0, scale, -shift], [0, 0, 1]])
    views = [_sample(teacher)], [_sample(move @ student)]
    head = _head(offset, [(4, 4)])

    def score(view):
        cells = (np.arange(16) + offset) * 4
        points = np.stack(np.meshgrid(cells, cells), axis=-1)
        points = np.concatenate([points, np.ones((16, 16, 1))], axis=-1)
        image = points @ np.linalg.inv(view.homography_matrix).T
        return torch.from_numpy(0.3 + image[..., 0] / 400 + image[..., 1] / 800).float(), image

    given_scores, _ = score(views[0][0])
    expected, image = score(views[1][0])
    known = TeacherScores([torch.logit(given_scores)[None, None]], views[0])
    [(carried, seen)] = scores_in_view(known, views[1], [torch.zeros(1, 1, 16, 16)], head)
    inside = torch.from_numpy(((image[..., :2] >= 4) & (image[..., :2] <= 60)).all(-1))
    assert seen[0, 0][inside].all()
    assert torch.allclose(carried[0, 0][inside], expected[inside], atol=1e-4)
    outside = torch.from_numpy(((image[..., :2] < -1e-3) | (image[..., :2] > 64.001)).any(-1))
    assert not seen[0, 0][outside].any()


def test_the_loss_vanishes_where_both_agree_and_pulls_where_they_do_not():
    """At the teacher's scores the loss and its gradient are 0; unseen places have none at all."""
    scores = torch.rand(2, 3, 4, 4) * 0.9 + 0.05
    seen = torch.ones(2, 1, 4, 4)
    seen[0, 0, 0, 0] = 0
    agreeing = torch.logit(scores).requires_grad_()
    loss = distillation_loss([agreeing], [PlaceScores(scores, seen)])
    loss.backward()
    assert abs(loss.item()) < 1e-5
    assert agreeing.grad.abs().max() < 1e-6
    below = (torch.logit(scores) - 1).requires_grad_()
    distillation_loss([below], [PlaceScores(scores, seen)]).backward()
    assert (below.grad[0, :, 0, 0] == 0).all()
    assert (below.grad[1] < 0).all()


def joint_step(model, teacher):
    """One labelled and two unlabelled images, with the real teacher in ``teacher``'s state."""
    stage = StageSchedule(
        dict(joint=dict(begin=0, end=10, images=dict(labelled=1, unlabelled=2)))
    ).at(0)
    model.begin_iteration(stage, 0)
    model.set_thresholds(np.full(2, 2.0), np.full(2, 2.0))
    model.teacher.load_state_dict(teacher)
    images = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return model.loss(
        {'sup': images[:1], 'unsup_teacher': images[1:], 'unsup_student': images[1:]},
        {
            'sup': [sample([[20, 20, 70, 70]])],
            'unsup_teacher': [sample(), sample()],
            'unsup_student': [sample(), sample()],
        },
    )


@pytest.mark.parametrize('name', DETECTORS)
def test_images_without_a_sure_box_teach_through_scores(name, tiny_config):
    """No box is kept; detectors that score densely learn from the teacher all the same."""
    model = build(tiny_config(DETECTORS[name]), dense_weight=1.0)
    other = {key: value * 1.1 for key, value in model.teacher.state_dict().items()}
    losses = joint_step(model, other)
    assert {key for key in losses if key.startswith('unsup_')} == (
        {'unsup_loss_dense'} if scores_densely(model.student) else set()
    )
    backward(losses)


def test_the_dense_loss_is_none_where_student_and_teacher_are_one(tiny_config):
    model = build(tiny_config(DETECTORS['atss']), dense_weight=1.0)
    model.student.eval()
    same = {key: value.clone() for key, value in model.student.state_dict().items()}
    assert joint_step(model, same)['unsup_loss_dense'].item() == pytest.approx(0, abs=1e-4)
    other = dict(same)
    other['bbox_head.atss_cls.bias'] = same['bbox_head.atss_cls.bias'] + 1
    assert joint_step(model, other)['unsup_loss_dense'].item() > 0.1


def test_which_boxes_teach_changes_no_score(tiny_config):
    """The head sees images with and without sure boxes apart, and their scores stay in order."""
    student = build(tiny_config(DETECTORS['atss'])).student.eval()
    images = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    samples = [sample([[20, 20, 70, 70]]) for _ in range(3)]
    with torch.no_grad():
        logits = list(student.bbox_head(student.extract_feat(images.flip(-1) * 2))[0])
    known = TeacherScores(logits, samples)

    def dense_loss(taught):
        branch = Branch(images, samples, 1.0, '', taught, known, dense_weight=2.0)
        return losses_of_branches(student, [branch])[0]['loss_dense'].item()

    assert dense_loss(None) == pytest.approx(dense_loss([1]), rel=1e-4)
    assert dense_loss(None) == pytest.approx(dense_loss([]), rel=1e-4)
    assert dense_loss(None) > 1e-3
