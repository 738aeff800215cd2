"""A network that has learnt all it will, made faster."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from mmengine.logging import print_log
from torch import Tensor, nn

from mmdsym.half_precision import bfloat16_is_faster

_INPUTS = """graph(%x, %weight, %bias, %stride, %padding, %dilation, %transposed, %output_padding,
    %groups, %benchmark, %deterministic, %cudnn, %tf32, %low, %high):"""
_APART = f"""{_INPUTS}
  %found = aten::_convolution(%x, %weight, %bias, %stride, %padding, %dilation, %transposed,
    %output_padding, %groups, %benchmark, %deterministic, %cudnn, %tf32)
  %cut = aten::hardtanh_(%found, %low, %high)
  return (%cut)"""
_FUSED = f"""{_INPUTS}
  %name : str = prim::Constant[value="hardtanh"]()
  %algorithm : str = prim::Constant[value=""]()
  %limits : Scalar?[] = prim::ListConstruct(%low, %high)
  %cut = mkldnn::_convolution_pointwise(%x, %weight, %bias, %padding, %stride, %dilation, %groups,
    %name, %limits, %algorithm)
  return (%cut)"""


_LEAST_COSINE = 0.99
"""Between a vector in float32 and in bfloat16, in the mean of a batch: a network whose vectors turn
further has broken. Not the least of a batch: single crops that show little turn by some degrees in
any network, and which crops come first is chance, which a resumed run would not repeat."""


class Folded:
    """Folds normalisation into the convolutions of a network on a CPU, at its first use.

    This takes a third off the time of EfficientNet-Lite0; results differ by rounding alone. Another
    tenth goes where convolutions cut off their own results (ReLU6) instead of leaving that to a
    further pass over them, and more than half where the processor is faster in bfloat16 (AMX,
    AVX512-BF16): features then turn by about a degree, few by more than three. Later changes of the
    network's weights are not seen. Not for a GPU, where torch would compile the traced network anew
    for each number of crops.

    Args:
        network: In evaluation mode; it returns one vector for each image, and must compute the same
            steps whatever the batch holds.

    Attributes:
        precision: What it multiplies; known after the first use.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._traced_network: torch.jit.ScriptModule | None = None
        self.precision = torch.float32

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Tensor:
        """Returns what the network does.

        Args:
            inputs: (N, C, H, W), float32, on the CPU; H and W are the same at each call.
        """
        if self._traced_network is None:
            self._fold(inputs)
        return self._traced_network(inputs.to(self.precision)).float()

    def _fold(self, inputs: Tensor) -> None:
        self._traced_network = _fused(self.network, inputs)
        if not bfloat16_is_faster():
            return
        short = _shortened(self.network, inputs)
        if short is None:
            return
        found = short(inputs.bfloat16()).float()
        cosine = float(F.cosine_similarity(found, self._traced_network(inputs)).mean())
        if cosine > _LEAST_COSINE:
            self._traced_network, self.precision = short, torch.bfloat16
        else:
            print_log(
                "CLIP's image tower stays in float32, which is slower: in bfloat16 its "
                f'vectors have a cosine of {cosine:.3f} with what they were.',
                logger='current',
            )


def _fused(network: nn.Module, inputs: Tensor) -> torch.jit.ScriptModule:
    plain = _traced(network, inputs)
    if not torch.backends.mkldnn.is_available():
        return plain
    fused = _traced(network, inputs)
    # What is used here torch keeps to itself: where it is missing or has changed, do without.
    try:
        _join_cuts(fused)
        same = torch.allclose(fused(inputs), plain(inputs), rtol=1e-4, atol=1e-5)
    except (AttributeError, RuntimeError):
        return plain
    return fused if same else plain


def _shortened(network: nn.Module, inputs: Tensor) -> torch.jit.ScriptModule | None:
    """Traces the network in bfloat16; its weights are folded first, and so rounded once alone."""
    traced = _traced(network, inputs)
    try:
        _join_cuts(traced)
        for node in traced.graph.findAllNodes('prim::Constant'):
            if node.hasAttribute('value') and node.kindOf('value') == 't':
                tensor = node.t('value')
                if tensor.dtype == torch.float32:
                    node.t_('value', tensor.bfloat16())
        torch._C._jit_pass_erase_shape_information(traced.graph)
        traced(inputs.bfloat16())
    except (AttributeError, RuntimeError):
        return None
    return traced


def _join_cuts(traced: torch.jit.ScriptModule) -> None:
    torch._C._jit_pass_custom_pattern_based_rewrite_graph(_APART, _FUSED, traced.graph)


def _traced(network: nn.Module, inputs: Tensor) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        # Sizes become constants, which they are.
        warnings.simplefilter('ignore', torch.jit.TracerWarning)
        traced = torch.jit.trace(network.eval(), inputs, check_trace=False)
    return torch.jit.freeze(traced)
