"""Layers that take another way on a CPU, and the optimizer wrapper that computes in bfloat16."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import pytest
import torch
from conftest import REPOSITORY
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from timm.layers import Conv2dSame
from torch import nn

from mmdsym.engine import bfloat16_optim_wrapper
from mmdsym.engine.bfloat16_optim_wrapper import Bfloat16OptimWrapper, prepare
from mmdsym.models.cpu_layers import (
    ContiguousGroupNorm,
    DepthwiseConv2d,
    SubsampledConv2d,
    _gradient_of_input,
    _gradient_of_kernel,
    avoid_broken_gradients,
    avoid_slow_gradients,
    avoid_slow_norms,
)
from mmdsym.models.same_padding import pad_kernels


def gradients(layer: nn.Module, images: torch.Tensor, mixed: bool) -> list[torch.Tensor]:
    """What a layer finds, and the gradients of its input and of its tensors."""
    images = images.clone().requires_grad_(True)
    with torch.autocast('cpu', torch.bfloat16, enabled=mixed):
        found = layer(images)
    weights = torch.linspace(-1, 1, found.numel()).view(found.shape)
    parts = torch.autograd.grad((found.float() * weights).sum(), [images, *layer.parameters()])
    return [found.detach(), *parts]


@pytest.mark.parametrize('shape', [(2, 8, 5, 7), (3, 8, 1, 1)])
@pytest.mark.parametrize('groups', [1, 4, 8])
def test_group_norm_computes_the_same(shape, groups):
    torch.manual_seed(0)
    plain = nn.GroupNorm(groups, 8)
    plain.weight.data.uniform_(0.5, 2)
    plain.bias.data.normal_()
    other = copy.deepcopy(plain)
    avoid_slow_norms(other)
    assert type(other) is ContiguousGroupNorm
    images = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    found = gradients(other, images, mixed=False)
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    for one, another in zip(found, gradients(plain, images, mixed=False), strict=True):
        torch.testing.assert_close(one, another, rtol=1e-4, atol=1e-5)


def convolution(kind: str) -> nn.Module:
    """A depthwise convolution of 8 channels."""
    if kind == 'same':
        layer = Conv2dSame(8, 8, 5, 2, groups=8, bias=False)
        pad_kernels(layer)
        return layer
    return nn.Conv2d(8, 8, 5, 1, 2, groups=8, bias=kind == 'bias')


@pytest.mark.parametrize('kind', ['plain', 'bias', 'same'])
@pytest.mark.parametrize('size', [(12, 12), (9, 14), (2, 3)])
def test_a_depthwise_convolution_learns_nearly_the_same_in_bfloat16(kind, size):
    torch.manual_seed(0)
    layer = convolution(kind)
    changed = copy.deepcopy(layer)
    avoid_slow_gradients(changed)
    assert kind == 'same' or type(changed) is DepthwiseConv2d
    images = torch.randn(3, 8, *size).contiguous(memory_format=torch.channels_last)
    exact = gradients(layer, images, mixed=False)
    for one, another in zip(gradients(changed, images, mixed=False), exact, strict=True):
        torch.testing.assert_close(one, another)
    mixed = gradients(changed, images, mixed=True)
    assert mixed[0].dtype == torch.bfloat16
    for one, another in zip(mixed, exact, strict=True):
        assert one.shape == another.shape
        assert torch.cosine_similarity(one.float().flatten(), another.flatten(), dim=0) > 0.999


@pytest.mark.parametrize(('outputs', 'groups'), [(8, 1), (8, 2), (16, 8)])
def test_a_padded_kernel_that_is_not_depthwise_learns_as_ever(outputs, groups):
    torch.manual_seed(0)
    layer = Conv2dSame(8, outputs, 3, 2, groups=groups)
    padded = copy.deepcopy(layer)
    pad_kernels(padded)
    images = torch.randn(2, 8, 6, 6)
    for one, another in zip(
        gradients(padded, images, mixed=True), gradients(layer, images, mixed=True), strict=True
    ):
        torch.testing.assert_close(one, another, rtol=0.02, atol=0.02)


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize(('kernel', 'stride'), [((5, 5), 1), ((5, 4), (1, 2)), ((6, 6), 2)])
def test_the_gradient_of_a_kernel_is_exact(kernel, stride, channels_last):
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 6, kernel, stride, 2, groups=6, bias=False).double()
    images = torch.randn(3, 6, 11, 8, dtype=torch.float64)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    found = layer(images)
    gradient = torch.randn_like(found)
    (expected,) = torch.autograd.grad(found, layer.weight, gradient)
    mine = _gradient_of_kernel(images, gradient, layer.stride, layer.padding, layer.weight.shape)
    torch.testing.assert_close(mine, expected.float())


@pytest.mark.parametrize('padding', [0, (2, 1), 4])
@pytest.mark.parametrize(('kernel', 'stride'), [((5, 5), 1), ((5, 4), 1), ((6, 6), 2)])
def test_the_gradient_of_an_input_is_exact(kernel, stride, padding):
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 6, kernel, stride, padding, groups=6, bias=False)
    images = torch.randn(3, 6, 11, 8).contiguous(memory_format=torch.channels_last)
    images.requires_grad_(True)
    found = layer(images)
    gradient = torch.randn_like(found)
    (expected,) = torch.autograd.grad(found, images, gradient)
    mine = _gradient_of_input(
        images.detach(), gradient, layer.weight.detach(), layer.stride, layer.padding
    )
    torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('stride', 'wanted'), [(1, []), (2, [(torch.float32, [True, False])])])
def test_slow_kernels_are_not_asked(stride, wanted, monkeypatch):
    asked = []
    true = torch.ops.aten.convolution_backward

    def noted(gradient, *others):
        asked.append((gradient.dtype, list(others[-1][:2])))
        return true(gradient, *others)

    layer = nn.Conv2d(8, 8, 5, stride, 2, groups=8)
    avoid_slow_gradients(layer)
    monkeypatch.setattr(torch.ops.aten, 'convolution_backward', noted)
    gradients(layer, torch.randn(1, 8, 6, 6), mixed=True)
    assert asked == wanted


@pytest.mark.parametrize(
    'layer',
    [
        nn.Conv2d(8, 8, 3, 1, 1, groups=8),
        nn.Conv2d(8, 8, 5, 1, 2),
        nn.Conv2d(8, 16, 5, 1, 2, groups=8),
        nn.Conv2d(8, 8, 5, 1, 'same', groups=8),
        nn.Conv2d(8, 8, 5, 1, 2, groups=8, padding_mode='reflect'),
        nn.Conv2d(8, 8, 5, 1, 4, dilation=2, groups=8),
    ],
)
def test_other_convolutions_stay_as_they_are(layer):
    avoid_slow_gradients(layer)
    assert type(layer) is nn.Conv2d


@pytest.mark.parametrize('channels', [1, 3, 8, 15])
@pytest.mark.parametrize('stride', [2, (1, 3), (3, 2)])
@pytest.mark.parametrize(('bias', 'padding'), [(False, 0), (True, 'valid')])
def test_a_strided_convolution_of_pixels_computes_the_same(channels, stride, bias, padding):
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, 16, 1, stride, padding, bias=bias)
    mended = copy.deepcopy(layer).to(memory_format=torch.channels_last)
    avoid_broken_gradients(mended)
    assert type(mended) is SubsampledConv2d
    images = torch.randn(3, channels, 9, 12)
    last = images.contiguous(memory_format=torch.channels_last)
    found = gradients(mended, last, mixed=False)
    # One channel lies the same way in either layout.
    assert channels == 1 or found[0].is_contiguous(memory_format=torch.channels_last)
    # In the other layout the plain layer is sound.
    for one, another in zip(found, gradients(layer, images, mixed=False), strict=True):
        torch.testing.assert_close(one, another)


@pytest.mark.parametrize(
    'layer',
    [
        nn.Conv2d(8, 16, 1),
        nn.Conv2d(16, 16, 1, 2),
        nn.Conv2d(8, 16, 3, 2, 1),
        nn.Conv2d(8, 16, 1, 2, 1),
        nn.Conv2d(8, 8, 1, 2, groups=8),
    ],
)
def test_convolutions_with_sound_gradients_stay_as_they_are(layer):
    avoid_broken_gradients(layer)
    assert type(layer) is nn.Conv2d


CORRUPTS_MEMORY = """
import torch
from mmdsym.models.cpu_layers import avoid_broken_gradients
layer = torch.nn.Conv2d(8, 16, 1, 2, bias=False).to(memory_format=torch.channels_last)
avoid_broken_gradients(layer)
for size in (16, 28):
    images = torch.randn(3, 8, size, size).contiguous(memory_format=torch.channels_last)
    for _ in range(300):
        layer(images).sum().backward()
"""


def test_a_narrow_strided_convolution_leaves_memory_whole():
    # Unmended, it ends a process of two threads by a signal on processors with AVX-512.
    environment = {**os.environ, 'OMP_NUM_THREADS': '2', 'PYTHONPATH': str(REPOSITORY)}
    subprocess.run([sys.executable, '-c', CORRUPTS_MEMORY], check=True, env=environment)


def build(config: str, **parts) -> nn.Module:
    cfg = Config.fromfile(REPOSITORY / 'configs/_base_/detectors' / config)
    init_default_scope('mmdet')
    for name, values in parts.items():
        cfg.model[name].update(values)
    return MODELS.build(cfg.model)


def wrapper(model: nn.Module) -> Bfloat16OptimWrapper:
    return Bfloat16OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-3))


def batch(size: int = 64) -> dict:
    """Two images with a box each, as a detector's preprocessor takes them."""
    samples = []
    for _ in range(2):
        sample = DetDataSample(metainfo=dict(img_shape=(size, size), scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[8.0, 8.0, 40.0, 48.0]]), labels=torch.zeros(1, dtype=torch.long)
        )
        samples.append(sample)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=generator)
    return dict(inputs=list(images), data_samples=samples)


@pytest.mark.parametrize(
    'config', ['atss_efficientnet_lite0.py', 'faster_rcnn_efficientnet_lite0.py', 'rtmdet_tiny.py']
)
@pytest.mark.parametrize('has_unit', [False, True])
def test_a_step_learns_in_the_faster_precision(config, has_unit, monkeypatch):
    monkeypatch.setattr(bfloat16_optim_wrapper, 'bfloat16_is_faster', lambda: has_unit)
    torch.manual_seed(0)
    own = {} if 'rtmdet' in config else dict(pretrained=None)
    model = build(config, backbone=own).train()
    optim_wrapper = wrapper(model)
    seen = set()
    model.backbone.register_forward_hook(lambda _, __, found: seen.add(found[-1].dtype))
    data = model.data_preprocessor(batch(), training=True)
    with optim_wrapper.optim_context(model):
        losses = model(**data, mode='loss')
    total, _ = model.parse_losses(losses)
    assert total.dtype == torch.float32 and torch.isfinite(total)
    before = copy.deepcopy(model.state_dict())
    optim_wrapper.update_params(total)
    assert seen == {torch.bfloat16 if has_unit else torch.float32}
    assert all(value.dtype == before[name].dtype for name, value in model.state_dict().items())
    assert any((value != before[name]).any() for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    'config',
    [
        'atss_efficientnet_lite0.py',
        'faster_rcnn_efficientnet_lite0.py',
        'fcos_r50.py',
        'retinanet_r50.py',
        'rtmdet_tiny.py',
    ],
)
def test_the_losses_are_nearly_those_of_float32(config, monkeypatch):
    torch.manual_seed(0)
    own = dict(pretrained=None) if 'lite0' in config else dict(init_cfg=None)
    model = build(config, backbone=own).train()
    data = model.data_preprocessor(batch(), training=True)
    found = {}
    for has_unit in (False, True):
        monkeypatch.setattr(
            bfloat16_optim_wrapper, 'bfloat16_is_faster', lambda unit=has_unit: unit
        )
        # For the regions that a two-stage detector draws.
        torch.manual_seed(0)
        with wrapper(model).optim_context(model):
            losses = model(**data, mode='loss')
        found[has_unit] = model.parse_losses(losses)[0].item()
    assert found[True] != found[False]
    assert found[True] == pytest.approx(found[False], rel=0.02)


def test_heads_give_float32_and_keep_their_structure(monkeypatch):
    monkeypatch.setattr(bfloat16_optim_wrapper, 'bfloat16_is_faster', lambda: True)
    model = build('atss_efficientnet_lite0.py', backbone=dict(pretrained=None)).eval()
    with torch.no_grad(), wrapper(model).optim_context(model):
        features = model.extract_feat(torch.randn(1, 3, 64, 64))
        scores, boxes, centerness = model.bbox_head(features)
    assert {feature.dtype for feature in features} == {torch.bfloat16}
    for maps in (scores, boxes, centerness):
        assert len(maps) == len(features) and {one.dtype for one in maps} == {torch.float32}


def semi_supervised(kind: str, **options) -> nn.Module:
    cfg = Config.fromfile(REPOSITORY / 'configs/_base_/detectors/atss_efficientnet_lite0.py')
    cfg.model.backbone.pretrained = None
    init_default_scope('mmdet')
    predict_on = dict(predict_on='teacher')
    return MODELS.build(dict(type=kind, detector=cfg.model, semi_test_cfg=predict_on, **options))


@pytest.mark.parametrize('kind', ['DETR', 'SemiBaseDetector'])
def test_detectors_that_compute_coordinates_keep_float32(kind, monkeypatch):
    monkeypatch.setattr(bfloat16_optim_wrapper, 'bfloat16_is_faster', lambda: True)
    if kind == 'DETR':
        model = build('deformable_detr_r50.py', backbone=dict(init_cfg=None))
    else:
        model = semi_supervised(kind, semi_train_cfg=dict(freeze_teacher=True))
    assert not prepare(model)
    with wrapper(model).optim_context(model):
        assert not torch.is_autocast_enabled('cpu')


def test_teacher_and_student_suit_the_faster_precision(monkeypatch):
    monkeypatch.setattr(bfloat16_optim_wrapper, 'bfloat16_is_faster', lambda: True)
    model = semi_supervised('mmdsym.DSYMDetector')
    with wrapper(model).optim_context(model):
        assert torch.is_autocast_enabled('cpu')
        features = model.teacher.extract_feat(torch.randn(1, 3, 64, 64))
    assert features[0].dtype == torch.bfloat16


def test_a_model_is_prepared_once(monkeypatch):
    monkeypatch.setattr(bfloat16_optim_wrapper, 'bfloat16_is_faster', lambda: True)
    model = build('atss_efficientnet_lite0.py', backbone=dict(pretrained=None))
    optim_wrapper = wrapper(model)
    for _ in range(3):
        with optim_wrapper.optim_context(model):
            assert torch.is_autocast_enabled('cpu')
    assert len(model.bbox_head._forward_hooks) == 1
