"""bfloat16 where the processor is faster in it: nearly the same results, weights in float32."""

from __future__ import annotations

import copy

import pytest
import torch
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import RUNNERS
from torch import nn

from mmdsym import half_precision
from mmdsym.clip import folded
from mmdsym.diffusion.inpainting_model import DefectInpaintingDiffusion
from mmdsym.errors import UserError
from mmdsym.half_precision import autocast_where_fast, bfloat16_is_faster


@pytest.fixture
def model() -> DefectInpaintingDiffusion:
    torch.manual_seed(0)
    unet = dict(
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=('DownBlock2D', 'DownBlock2D'),
        up_block_types=('UpBlock2D', 'UpBlock2D'),
        norm_num_groups=4,
    )
    return DefectInpaintingDiffusion(
        num_classes=2,
        denoiser=dict(crop_size=32, channels=1, patch_size=4, unet=unet),
        noise_schedule=dict(sigma_data=0.1, prediction_type='epsilon'),
        noise_levels=dict(mean=-0.4, std=1.7),
    )


def loss_and_gradients(model: nn.Module) -> tuple[float, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    image = torch.randint(0, 256, (4, 1, 32, 32), dtype=torch.uint8)
    region = torch.zeros_like(image)
    region[:, :, 8:24, 8:24] = 255
    model.zero_grad()
    loss = model(image, region, region, torch.tensor([0, 1, -1, 0]), mode='loss')['loss']
    loss.backward()
    return loss.item(), {name: weight.grad.clone() for name, weight in model.named_parameters()}


def test_a_diffusion_model_learns_nearly_the_same(model, monkeypatch):
    monkeypatch.setattr(half_precision, 'bfloat16_is_faster', lambda: False)
    expected, exact = loss_and_gradients(model)
    monkeypatch.setattr(half_precision, 'bfloat16_is_faster', lambda: True)
    weights = copy.deepcopy(model.state_dict())
    found, gradients = loss_and_gradients(model)
    assert found != expected and found == pytest.approx(expected, rel=0.02)
    assert all(weight.dtype == torch.float32 for weight in model.parameters())
    assert all(gradient.dtype == torch.float32 for gradient in gradients.values())
    one, other = (torch.cat([g.flatten() for g in all_.values()]) for all_ in (exact, gradients))
    assert torch.cosine_similarity(one, other, dim=0) > 0.99
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    ('device', 'has_unit', 'product'),
    [
        ('cpu', True, torch.bfloat16),
        ('cpu', False, torch.float32),
        ('meta', True, torch.float32),
    ],
)
def test_only_a_cpu_with_the_unit_changes_its_digits(device, has_unit, product, monkeypatch):
    monkeypatch.setattr(half_precision, 'bfloat16_is_faster', lambda: has_unit)
    matrix = torch.ones(2, 2)
    with autocast_where_fast(torch.device(device)):
        assert (matrix @ matrix).dtype == product


@pytest.mark.parametrize(('said', 'expected'), [('0', False), ('1', True), ('', None)])
def test_the_environment_overrules_the_processor(said, expected, monkeypatch):
    found = bfloat16_is_faster()
    monkeypatch.setenv(half_precision.SWITCH, said)
    assert bfloat16_is_faster() == (found if expected is None else expected)


@pytest.mark.parametrize('unit', half_precision._UNITS)
def test_either_unit_will_do(unit, monkeypatch):
    monkeypatch.delenv(half_precision.SWITCH, raising=False)
    for name in half_precision._UNITS:
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name == unit, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: True)
    monkeypatch.setattr(half_precision, 'time_of_bfloat16', lambda: 0.5)
    assert bfloat16_is_faster()
    monkeypatch.setattr(torch.cpu, unit, lambda: False)
    assert not bfloat16_is_faster()


@pytest.mark.parametrize(('ratio', 'expected'), [(0.6, True), (0.95, False), (1.8, False)])
def test_a_unit_that_is_slower_is_not_used(ratio, expected, monkeypatch):
    monkeypatch.delenv(half_precision.SWITCH, raising=False)
    monkeypatch.setattr(half_precision, 'has_bfloat16_unit', lambda: True)
    monkeypatch.setattr(half_precision, 'time_of_bfloat16', lambda: ratio)
    assert bfloat16_is_faster() == expected


def test_the_processor_is_tried_once_and_in_both_precisions(monkeypatch):
    seen = []
    product = torch.Tensor.__matmul__

    def watched(one, other):
        seen.append(product(one, other).dtype)
        return product(one, other)

    monkeypatch.setattr(torch.Tensor, '__matmul__', watched)
    half_precision.time_of_bfloat16.cache_clear()
    with torch.autocast('cpu', torch.bfloat16):
        ratio = half_precision.time_of_bfloat16()
    assert 0 < ratio < 1000
    assert set(seen) == {torch.float32, torch.bfloat16}
    products = len(seen)
    assert half_precision.time_of_bfloat16() == ratio and len(seen) == products


def test_a_processor_without_the_unit_is_not_tried(monkeypatch):
    monkeypatch.delenv(half_precision.SWITCH, raising=False)
    monkeypatch.setattr(half_precision, 'has_bfloat16_unit', lambda: False)
    monkeypatch.setattr(half_precision, 'time_of_bfloat16', lambda: pytest.fail('was tried'))
    assert not bfloat16_is_faster()


def test_a_torch_that_cannot_be_asked_has_no_unit(monkeypatch):
    monkeypatch.delenv(half_precision.SWITCH, raising=False)
    for name in half_precision._UNITS:
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not bfloat16_is_faster()


@pytest.mark.parametrize('wrapper', ['AmpOptimWrapper', AmpOptimWrapper])
def test_mixed_precision_asks_for_a_gpu(wrapper, monkeypatch, tiny_config, tmp_path):
    monkeypatch.setattr(half_precision, 'get_device', lambda: 'cpu')
    cfg = tiny_config('baselines/supervised_neu_40pct.py', image_size=(64, 64))
    cfg.optim_wrapper.type = wrapper
    cfg.work_dir = str(tmp_path)
    with pytest.raises(UserError, match='needs a GPU'):
        RUNNERS.build(cfg).train()
    monkeypatch.setattr(half_precision, 'get_device', lambda: 'cuda')
    half_precision.require_precision(dict(type=wrapper))


def test_other_optimizers_are_let_through(monkeypatch):
    monkeypatch.setattr(half_precision, 'get_device', lambda: 'cpu')
    half_precision.require_precision(dict(type='OptimWrapper'))
    half_precision.require_precision({})


@pytest.mark.parametrize(('turned', 'precision'), [(1, torch.bfloat16), (8, torch.float32)])
def test_a_single_odd_crop_does_not_decide_about_all(turned, precision, monkeypatch):
    def shortened(network: nn.Module, inputs: torch.Tensor):
        def turn(batch: torch.Tensor) -> torch.Tensor:
            vectors = network(batch.float())
            # By about 20 degrees.
            vectors[:turned, 1] += 0.36 * vectors[:turned].norm(dim=1)
            return vectors

        return turn

    monkeypatch.setattr(folded, 'bfloat16_is_faster', lambda: True)
    monkeypatch.setattr(folded, '_shortened', shortened)
    first = torch.zeros(8, 3, 1, 1)
    first[:, 0] = 1
    tower = folded.Folded(nn.Flatten())
    tower(first)
    assert tower.precision == precision
