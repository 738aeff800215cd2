"""Where a CLIP model comes from: an open_clip tag, a local file, or a config of two towers."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from mmdsym.clip.extent_head import ExtentHead
from mmdsym.errors import UserError
from mmdsym.models.pretrained import PYPI_EFFICIENTNET, check_model_name, load_pretrained

CONFIG_NAME = 'open_clip_config.json'
WEIGHTS_NAME = 'open_clip_model.safetensors'
"""open_clip's own names, so that it can load an adapted model as ``local-dir:FOLDER``."""

EXTENT_NAME = 'extent/head.safetensors'
"""In a folder of its own: open_clip takes any safetensors file beside the config for weights."""

LITE0_CLIP: dict = dict(
    embed_dim=256,
    vision_cfg=dict(
        timm_model_name='tf_efficientnet_lite0',
        timm_pool='avg',
        timm_proj='linear',
        image_size=112,
    ),
    text_cfg=dict(context_length=32, width=256, heads=4, layers=3),
)
"""A model for machines that reach no hub: ImageNet's image tower and a small text tower, which
knows nothing before it is adapted."""

_PROBE_SECONDS = 5.0


@dataclass(frozen=True)
class ClipModel:
    """An open_clip network and what it expects of its input.

    Attributes:
        network: With ``encode_image``, ``encode_text`` and ``logit_scale``.
        tokenise: Turns sentences into tokens, (N, context length).
        image_size: Side of a crop in pixels.
        mean: Of red, green and blue, in units of 0..1.
        std: Likewise.
        config: open_clip's ``model_cfg``, from which the network can be built again.
        settings: What an adapted model brings along: classes, prompts, views.
        extent_head: What it has learnt about how well boxes fit, if anything.
    """

    network: nn.Module
    tokenise: Callable[[Sequence[str]], Tensor]
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    config: dict
    settings: dict = field(default_factory=dict)
    extent_head: ExtentHead | None = None


def build_clip(
    model: str | Mapping | None = None,
    pretrained: str | None = None,
    image_pretrained: str | None = None,
    weights: str | os.PathLike | None = None,
) -> ClipModel:
    """Builds a CLIP model.

    Args:
        model: Name of an open_clip architecture (``'ViT-B-32'``), or a ``model_cfg`` of open_clip's
            with ``embed_dim``, ``vision_cfg`` and ``text_cfg``; the image tower may be any of
            timm's. By default :data:`LITE0_CLIP`.
        pretrained: An open_clip tag (``'openai'``), or a local ``.safetensors`` or torch file with
            the whole model's tensors.
        image_pretrained: Weights of a timm image tower alone: ``'pypi:efficientnet_lite0'``,
            ``'timm'`` or a file. By default the first one, for :data:`LITE0_CLIP`.
        weights: Folder of an adapted model; the other arguments must then be left out.

    Raises:
        UserError: Unknown name or tag, no network, missing weights or weights that do not fit.
    """
    if weights is not None:
        if model is not None or pretrained is not None or image_pretrained is not None:
            raise UserError(
                f'the adapted CLIP model in {weights} says itself what it is: leave out model, '
                'pretrained and image_pretrained beside weights.'
            )
        return _from_folder(Path(weights))
    if isinstance(model, str):
        return _from_name(model, pretrained, image_pretrained)
    if model is None:
        model, image_pretrained = LITE0_CLIP, image_pretrained or PYPI_EFFICIENTNET
    built = _from_config(model)
    if pretrained is not None:
        _load_whole(built.network, Path(pretrained))
    elif image_pretrained is not None:
        _load_image_tower(built, image_pretrained)
    return built


def has_trunk(network: nn.Module) -> bool:
    """Says whether the image tower is one of timm's, with features below its projection."""
    return hasattr(network.visual, 'trunk') and hasattr(network.visual, 'head')


def _from_folder(folder: Path) -> ClipModel:
    if not (folder / CONFIG_NAME).is_file():
        raise UserError(
            f'there is no adapted CLIP model in {folder} ({CONFIG_NAME} is missing): a config with '
            'parts makes it when tools/train.py starts it; for others train '
            'configs/clip/adapt_clip_neu_40pct.py first, or correct weights.'
        )
    try:
        content = json.loads((folder / CONFIG_NAME).read_text(encoding='utf-8'))
        preprocessing = content.get('preprocess_cfg') or {}
        built = _from_config(content['model_cfg'], preprocessing, content.get('mmdsym') or {})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f'{folder / CONFIG_NAME} describes no CLIP model ({error!r}): adapt it anew.'
        ) from None
    _load_whole(built.network, folder / WEIGHTS_NAME)
    width = built.settings.get('extent_width')
    return built if width is None else replace(built, extent_head=_read_extent(folder, width))


def _read_extent(folder: Path, width: int) -> ExtentHead:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    head = ExtentHead(width)
    try:
        head.load_state_dict(load_file(folder / EXTENT_NAME))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise UserError(
            f'{folder / EXTENT_NAME} cannot be read ({type(error).__name__}): adapt the CLIP model '
            'anew.'
        ) from None
    return head


def _from_config(
    config: Mapping, preprocessing: Mapping | None = None, settings: Mapping | None = None
) -> ClipModel:
    import open_clip

    config = deepcopy(dict(config))
    missing = [name for name in ('embed_dim', 'vision_cfg', 'text_cfg') if name not in config]
    if missing:
        raise UserError(f'the CLIP model config lacks {", ".join(missing)}: add it to model.')
    vision, text = dict(config['vision_cfg']), dict(config['text_cfg'])
    timm_name = vision.get('timm_model_name')
    if timm_name is not None:
        check_model_name(timm_name)
        vision['timm_model_pretrained'] = False
    custom = config.pop('custom_text', timm_name is not None or 'hf_model_name' in text)
    config.update(vision_cfg=vision, text_cfg=text)
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    try:
        network = _build_network(kind, config)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise UserError(
            f'open_clip cannot build a model from this config ({error}): correct model.'
        ) from None
    size = vision.get('image_size', 224)
    mean, std = _normalisation(timm_name)
    preprocessing = preprocessing or {}
    return ClipModel(
        network,
        _tokeniser(text),
        int(size if isinstance(size, int) else size[0]),
        tuple(preprocessing.get('mean', mean)),
        tuple(preprocessing.get('std', std)),
        {**config, 'custom_text': custom},
        dict(settings or {}),
    )


def _build_network(kind: type[nn.Module], config: Mapping) -> nn.Module:
    """Gives what no weights will fill the same random values each time, and disturbs no others."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return kind(**config)


def _normalisation(timm_name: str | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of the image tower alone: a network keeps the input statistics that it was trained with."""
    import open_clip
    import timm

    if timm_name is None:
        return open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    config = timm.get_pretrained_cfg(timm_name)
    if config is None:
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    return tuple(config.mean), tuple(config.std)


def _tokeniser(text: Mapping) -> Callable[[Sequence[str]], Tensor]:
    import open_clip

    length = text.get('context_length', 77)
    name = text.get('hf_tokenizer_name')
    if name is None:
        return open_clip.SimpleTokenizer(context_length=length)
    with _offline_without_network():
        try:
            return open_clip.tokenizer.HFTokenizer(name, context_length=length)
        except Exception as error:
            raise UserError(
                f"the tokenizer '{name}' could not be fetched ({type(error).__name__}): make it "
                'available in the local Hugging Face cache, or use a model without it.'
            ) from error


def _from_name(name: str, pretrained: str | None, image_pretrained: str | None) -> ClipModel:
    import open_clip

    if name not in open_clip.list_models():
        near = get_close_matches(name, open_clip.list_models(), n=4, cutoff=0.5)
        hint = f'did you mean {", ".join(near)}?' if near else 'see open_clip.list_models().'
        raise UserError(f"open_clip knows no model '{name}'; {hint}")
    if image_pretrained is not None:
        raise UserError(f"image_pretrained is for a model config, not for '{name}': leave it out.")
    config = open_clip.get_model_config(name)
    if pretrained is None:
        return _from_config(config)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained not in tags:
        path = Path(pretrained)
        if not path.is_file():
            raise UserError(
                f"'{pretrained}' is neither a pretrained tag of '{name}' nor a file: choose one "
                f'of {", ".join(tags) or "no tags"}, or give the path of its weights.'
            )
        built = _from_config(config)
        _load_whole(built.network, path)
        return built
    return _from_tag(name, pretrained, config)


def _from_tag(name: str, tag: str, config: dict) -> ClipModel:
    import open_clip

    with _offline_without_network():
        try:
            network = open_clip.create_model(name, pretrained=tag, weights_only=True)
        # Hub clients raise errors of many kinds (HTTP, DNS, offline mode, missing file).
        except Exception as error:
            raise UserError(
                f"the weights '{tag}' of '{name}' could not be fetched ({type(error).__name__}): "
                'download them on a machine with network and give the path of the file as '
                'pretrained, or leave out model and pretrained to start from ImageNet weights.'
            ) from error
    expected = open_clip.get_model_preprocess_cfg(network)
    mean, std = tuple(expected['mean']), tuple(expected['std'])
    size = network.visual.image_size
    size = int(size if isinstance(size, int) else size[0])
    return ClipModel(network, open_clip.get_tokenizer(name), size, mean, std, config)


@contextmanager
def _offline_without_network() -> Iterator[None]:
    """Keeps the hub's client from trying for minutes where there is no network: it uses its cache.

    A machine behind a proxy is taken to have one.
    """
    from huggingface_hub import constants

    host = urlparse(os.environ.get('HF_ENDPOINT', 'https://huggingface.co'))
    proxied = any(os.environ.get(name) for name in ('HTTPS_PROXY', 'https_proxy', 'ALL_PROXY'))
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not (proxied or _reachable(host.hostname, host.port))
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reachable(host: str | None, port: int | None) -> bool:
    try:
        socket.create_connection((host or '', port or 443), timeout=_PROBE_SECONDS).close()
    except OSError:
        return False
    return True


def _load_image_tower(built: ClipModel, source: str) -> None:
    name = built.config['vision_cfg'].get('timm_model_name')
    if name is None:
        raise UserError(
            f"image_pretrained='{source}' needs an image tower of timm's: name one as "
            'timm_model_name in vision_cfg.'
        )
    load_pretrained(built.network.visual.trunk, name, source)


def _load_whole(network: nn.Module, path: Path) -> None:
    from open_clip import factory
    from safetensors import SafetensorError

    if not path.is_file():
        raise UserError(
            f'the CLIP weights {path} do not exist: correct pretrained or weights, or adapt a '
            'model with tools/train.py configs/clip/adapt_clip_neu_40pct.py.'
        )
    try:
        factory.load_checkpoint(network, str(path), strict=True, weights_only=True)
    except (UnpicklingError, SafetensorError, ValueError, OSError, EOFError) as error:
        raise UserError(
            f'{path} cannot be read as plain weights ({type(error).__name__}): give a .safetensors '
            'file, or a torch file that loads with weights_only=True.'
        ) from None
    except (RuntimeError, KeyError, TypeError, AttributeError, StopIteration) as error:
        reason = ' '.join(str(error).split())[:200]
        raise UserError(
            f'the weights in {path} do not fit this CLIP model ({reason}): use the model that they '
            'were made for.'
        ) from None
    if not all(torch.isfinite(p).all() for p in network.parameters()):
        raise UserError(f'{path} holds weights that are not finite: use another checkpoint.')
