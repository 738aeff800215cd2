"""All images of a step pass the student together, whatever branch they belong to."""

import pytest
import torch
from test_detectors import DETECTORS, KEPT_AND_UNCERTAIN, SIZE, build, joint_step, sample
from torch.nn.modules.batchnorm import _BatchNorm

from mmdsym.models.joint_features import features_given, joint_features, pad_alike
from mmdsym.stages import StageSchedule


def trainable_norms(model) -> list[_BatchNorm]:
    norms = [m for m in model.student.modules() if isinstance(m, _BatchNorm) and m.training]
    assert norms
    return norms


def test_batch_norm_sees_all_images_of_a_step_at_once(tiny_config, monkeypatch):
    model = build(tiny_config(DETECTORS['atss']))
    norms = trainable_norms(model)
    seen = []
    hook = norms[0].register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    joint_step(model, [KEPT_AND_UNCERTAIN, KEPT_AND_UNCERTAIN], monkeypatch)
    hook.remove()
    assert seen == [3], 'one labelled and two unlabelled images'


def test_features_of_branches_are_those_of_one_batch(tiny_config):
    model = build(tiny_config(DETECTORS['retinanet']))
    model.student.eval()
    images = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    one, two = joint_features(model.student, [images[:1], images[1:]])
    for part, whole in zip(two, model.student.extract_feat(images), strict=True):
        torch.testing.assert_close(part, whole[1:])
    for part, alone in zip(one, model.student.extract_feat(images[:1]), strict=True):
        torch.testing.assert_close(part, alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('name', DETECTORS)
def test_losses_on_given_features_are_those_on_the_images(name, tiny_config):
    model = build(tiny_config(DETECTORS[name]))
    student = model.student
    if hasattr(student, 'level_embed'):
        torch.nn.init.normal_(student.level_embed)  # Deformable DETR leaves it uninitialised
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    samples = [sample([[20, 20, 70, 70]]), sample([[5, 5, 40, 60]])]
    torch.manual_seed(0)
    expected = student.loss(images, samples)
    features = joint_features(student, [images])[0]
    torch.manual_seed(0)
    with features_given(student, features):
        found = student.loss(torch.full_like(images, torch.nan), samples)
    torch.testing.assert_close(found, expected)


def test_the_detector_sees_images_again_even_after_an_error(tiny_config):
    student = build(tiny_config(DETECTORS['atss'])).student
    with pytest.raises(ZeroDivisionError), features_given(student, ()):
        raise ZeroDivisionError
    assert len(student.extract_feat(torch.randn(2, 3, SIZE, SIZE)))


def test_images_of_unequal_sizes_are_padded_and_samples_told():
    batches = [torch.ones(1, 3, 64, 96), torch.ones(2, 3, 96, 64)]
    samples = [[sample()], [sample(), sample()]]
    padded = pad_alike(batches, samples)
    assert [tuple(images.shape) for images in padded] == [(1, 3, 96, 96), (2, 3, 96, 96)]
    assert padded[0][:, :, 64:].sum() == 0 and padded[0][:, :, :64].min() == 1
    assert padded[1][:, :, :, 64:].sum() == 0
    assert {one.batch_input_shape for branch in samples for one in branch} == {(96, 96)}


def test_images_of_one_size_are_not_copied():
    images = torch.ones(1, 3, 64, 64)
    assert pad_alike([images], [[sample()]])[0] is images


def test_each_image_counts_alike_whatever_its_branch(tiny_config, monkeypatch):
    model = build(tiny_config(DETECTORS['atss']))
    model.student.eval()
    images = torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    boxes = [[20, 20, 70, 70]]
    model.begin_iteration(
        StageSchedule(dict(burn_in=dict(begin=0, end=1, images=dict(labelled=1)))).at(0), 0
    )
    losses = model.loss(
        {'sup': images[:3], 'synthetic': images[3:]},
        {'sup': [sample(boxes) for _ in range(3)], 'synthetic': [sample(boxes)]},
    )
    alone = model.student.loss(images[3:], [sample(boxes)])
    torch.testing.assert_close(losses['synthetic_loss_cls'][0], alone['loss_cls'][0] / 3)
