"""Models laid out as channels_last compute what they computed before."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_detectors
import torch
from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack, RoIAlign
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import nn

from mmdsym.engine.hooks import ChannelsLastHook
from mmdsym.models.cpu_layers import SubsampledConv2d
from mmdsym.models.memory_layout import lay_out_channels_last

DETECTORS = ['atss', 'deformable_detr', 'faster_rcnn', 'fcos', 'retinanet', 'rtmdet']
REGIONS = torch.tensor([[0, 4.0, 4, 60, 50], [1, 10, 2, 64, 60]])


class Features(nn.Module):
    """A convolution and what reads its maps."""

    def __init__(self, reader: nn.Module, *others: torch.Tensor) -> None:
        super().__init__()
        self.convolution, self.reader, self.others = nn.Conv2d(3, 8, 3, 1, 1), reader, others

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.reader(self.convolution(images), *self.others)


def found_and_gradients(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    found = model(images)
    weights = torch.linspace(-1, 1, found.numel()).view(found.shape)
    return [found, *torch.autograd.grad((found * weights).sum(), list(model.parameters()))]


@pytest.mark.parametrize(
    ('reader', 'others'),
    [
        (RoIAlign(7, 1 / 4, 0), [REGIONS]),
        (DeformConv2dPack(8, 6, 3, padding=1), []),
        (ModulatedDeformConv2dPack(8, 6, 3, padding=1), []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_operators_of_mmcv_read_and_teach_the_same(reader, others):
    torch.manual_seed(0)
    if hasattr(reader, 'conv_offset'):
        # Offsets start at 0, where rows and columns are alike.
        nn.init.normal_(reader.conv_offset.weight, std=0.1)
    model = Features(reader, *others)
    images = torch.randn(2, 3, 16, 16)
    before = found_and_gradients(model, images)
    lay_out_channels_last(model)
    lay_out_channels_last(model)
    assert len(model.reader._forward_pre_hooks) == 1
    assert model.convolution(images).is_contiguous(memory_format=torch.channels_last)
    for one, another in zip(found_and_gradients(model, images), before, strict=True):
        torch.testing.assert_close(one, another, rtol=1e-4, atol=1e-5)


def assert_same_boxes(one: InstanceData, another: InstanceData) -> None:
    """Each box of one has its own partner in the other, whatever order nearly equal scores took."""
    apart = (one.bboxes[:, None] - another.bboxes).abs().amax(-1)
    unlike = (one.scores[:, None] - another.scores).abs() > 1e-3 * another.scores + 1e-4
    apart = apart.masked_fill(unlike | (one.labels[:, None] != another.labels), 1e3)
    rows, columns = linear_sum_assignment(apart.detach().numpy())
    allowed = 0.05 + 1e-3 * another.bboxes[columns].abs().amax(-1)
    assert (apart[rows, columns] <= allowed).all()


@pytest.mark.parametrize('kind', DETECTORS)
def test_every_detector_finds_the_same_boxes(kind, tmp_path: Path):
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(copy.deepcopy(getattr(tiny_detectors, kind)())))
    model.init_weights()
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    sample = DetDataSample(
        metainfo=dict(ori_shape=(96, 96), img_shape=(96, 96), scale_factor=(1.0, 1.0))
    )
    batch = dict(inputs=list(images), data_samples=[sample, sample.clone()])
    model.eval()
    before = [image.pred_instances for image in model.test_step(copy.deepcopy(batch))]
    runner = Runner(model, work_dir=str(tmp_path), default_hooks={})
    ChannelsLastHook().before_run(runner)
    after = [image.pred_instances for image in model.test_step(batch)]
    assert any(
        not weight.is_contiguous() for weight in model.parameters() if weight.shape[-1:] > (1,)
    )
    for one, another in zip(after, before, strict=True):
        assert len(one) == len(another) > 0
        torch.testing.assert_close(one.scores, another.scores, rtol=1e-3, atol=1e-4)
        assert_same_boxes(one, another)


def test_the_hook_leaves_no_layer_whose_gradient_overwrites_memory():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 16, 1, 2))
    runner = SimpleNamespace(model=model, optim_wrapper=None)
    ChannelsLastHook().before_run(runner)
    assert [type(layer) for layer in model] == [nn.Conv2d, SubsampledConv2d]
