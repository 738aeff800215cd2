"""Kernels that are padded compute what images that are padded would."""

import copy

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import Conv2dSame

from mmdsym.models.same_padding import WeightPaddedConv2d, pad_kernels

torch.set_num_threads(1)


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.integers(1, 7),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    grouped=st.booleans(),
    bias=st.booleans(),
)
def test_any_convolution_computes_the_same(kernel, stride, dilation, height, width, grouped, bias):
    torch.manual_seed(0)
    plain = Conv2dSame(
        4, 4, kernel, stride, dilation=dilation, groups=4 if grouped else 1, bias=bias
    ).double()
    images = torch.randn(2, 4, height, width, dtype=torch.double)
    padded = copy.deepcopy(plain)
    pad_kernels(padded)
    expected = plain(images)
    torch.testing.assert_close(padded(images), expected)
    for conv in (plain, padded):
        conv(images).square().sum().backward()
    torch.testing.assert_close(padded.weight.grad, plain.weight.grad)


@pytest.mark.parametrize('size', [(112, 112), (96, 128), (97, 75)])
def test_a_whole_network_computes_the_same(size):
    network = timm.create_model('tf_efficientnet_lite0', num_classes=0).eval()
    padded = copy.deepcopy(network)
    pad_kernels(padded)
    assert sum(isinstance(module, WeightPaddedConv2d) for module in padded.modules()) == 5
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(padded(images), network(images), rtol=1e-4, atol=1e-5)
    assert list(padded.state_dict()) == list(network.state_dict())
