"""Looks whether the synthetic images that a config asks for are there, and makes nothing."""

from __future__ import annotations

import copy
from inspect import signature

from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

from mmdsym.config import walk
from mmdsym.diffusion import DiffusionSynthesisDataset
from mmdsym.diffusion.building import build_part
from mmdsym.diffusion.cache import SynthesisCache
from mmdsym.diffusion.labelled_images import read_labelled_images
from mmdsym.diffusion.layout_config import parse_layout
from mmdsym.diffusion.synthesis import Synthesis
from mmdsym.registry import ACCEPTANCE_TESTS, SYNTHESISERS

_NUMBERS = ('count', 'seed', 'max_attempts', 'batch_size')


def find_cache(cfg: Config, synthetic: ConfigDict) -> SynthesisCache:
    """Returns the cache of a synthetic data set's config, whether or not it is there.

    Args:
        cfg: A completed config; the models that it names must be there.
        synthetic: See :func:`mmdsym.diffusion.synthesis_config.find_synthesis`.

    Raises:
        UserError: A model or an image is missing or damaged.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    settings = copy.deepcopy(synthetic)
    cache_dir = settings.pop('cache_dir')
    for entry in walk(settings):
        # What is computed only to look must not be kept.
        for key in ('cache_dir', 'cache_file'):
            entry.pop(key, None)
    labelled = read_labelled_images(settings.dataset)
    accept = settings.get('accept')
    synthesis = Synthesis(
        labelled,
        build_part(SYNTHESISERS, settings.synthesiser, labelled.classes),
        parse_layout(settings.get('layout')),
        accept=accept and build_part(ACCEPTANCE_TESTS, accept, labelled.classes),
        **{name: settings.get(name, _default(name)) for name in _NUMBERS},
    )
    return SynthesisCache(cache_dir, synthesis.key, synthesis.count)


def state_of(cache: SynthesisCache) -> str:
    """Returns ``there``, ``damaged``, ``unfinished (how far)`` or ``missing``."""
    faults = cache.faults()
    if faults == {}:
        return 'there'
    if faults:
        return 'damaged'
    done = cache.images_begun()
    return f'unfinished ({done} of {cache.count})' if done else 'missing'


def _default(name: str) -> int:
    return signature(DiffusionSynthesisDataset).parameters[name].default
