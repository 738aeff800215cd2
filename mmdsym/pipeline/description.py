"""What determines the outcome of a training, as a flat list of settings."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmengine.config import Config

from .contents import Contents

FORMAT = 1
"""Raised whenever the same settings train something else."""

DETERMINING = (
    'model',
    'train_dataloader',
    'train_cfg',
    'optim_wrapper',
    'param_scheduler',
    'custom_hooks',
    'randomness',
    'load_from',
)
"""Top-level settings from which a training follows; the others name, log, draw and evaluate."""

# Keys that change speed, place or what is told, at any depth. Images are known by their content.
_INDIFFERENT = {
    'num_workers',
    'persistent_workers',
    'prefetch_factor',
    'pin_memory',
    'cache_megabytes',
    'cache_dir',
    'cache_file',
    'val_interval',
    'val_begin',
    'sheet_interval',
    'data_root',
    'data_prefix',
    'images_dir',
}
# Hooks that watch or write, and teach nothing.
_WATCHING_HOOKS = {
    'CLIPExportHook',
    'DiffusionExportHook',
    'PseudoLabelMonitorHook',
    'SampleSheetHook',
}
_ANNOTATIONS = ('ann_file', 'held_out_file')

Description = dict[str, 'str | int | float | bool | None']


def describe(
    cfg: Config, contents: Contents, known_folders: Mapping[str, str] | None = None
) -> Description:
    """Returns dotted names of settings and their values.

    Annotation files, the images that they list, and weights stand as digests of their content, so
    that a description is the same wherever the data lie, and another one when they change.

    Args:
        cfg: A completed config.
        contents: Digests the files.
        known_folders: Folders that need not be there yet, to what stands for their content.

    Raises:
        UserError: A file of the data cannot be read.
    """
    described: Description = {}
    for name in DETERMINING:
        if cfg.get(name) is not None:
            described.update(_flatten(cfg[name], name, contents, known_folders or {}))
    return described


def digest_of(description: Description) -> str:
    """Returns 12 hexadecimal digits that change when, and only when, a description does."""
    content = json.dumps([FORMAT, description], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def differences(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """Names the settings that two descriptions do not share, in the order of the first."""
    names = [*one, *(name for name in other if name not in one)]
    missing = object()
    return [name for name in names if one.get(name, missing) != other.get(name, missing)]


def _flatten(
    value: object, name: str, contents: Contents, folders: Mapping[str, str]
) -> Iterator[tuple[str, str | int | float | bool | None]]:
    if isinstance(value, Mapping):
        if not value:
            yield name, '{}'
        for key, entry in value.items():
            if key not in _INDIFFERENT:
                yield from _flatten(entry, f'{name}.{key}', contents, folders)
        # After the paths themselves, in whose place the digests stand.
        yield from _images(value, name, contents)
    elif isinstance(value, (list, tuple)):
        labelled = list(_labelled(value))
        yield name, len(labelled)
        for label, entry in labelled:
            yield from _flatten(entry, f'{name}.{label}', contents, folders)
    elif isinstance(value, str):
        yield name, _text(value, contents, folders)
    elif value is None or isinstance(value, (bool, int, float)):
        yield name, value
    else:
        yield name, getattr(value, '__qualname__', None) or repr(value)


def _labelled(values: list | tuple) -> Iterator[tuple[str, object]]:
    """Yields entries with their place, or, for hooks, with their type and which of it they are."""
    seen: Counter[str] = Counter()
    for index, value in enumerate(values):
        kind = str(value.get('type', '')) if isinstance(value, Mapping) else ''
        kind = kind.split('.')[-1]
        seen[kind] += 1
        if kind in _WATCHING_HOOKS:
            continue
        if kind.endswith('Hook'):
            yield (kind if seen[kind] == 1 else f'{kind} {seen[kind]}'), value
        else:
            yield str(index), value


def _images(entry: Mapping, name: str, contents: Contents) -> Iterator[tuple[str, str]]:
    """Yields the digest of the images that an entry's annotations list."""
    root = Path(entry.get('data_root') or '')
    prefix = entry.get('data_prefix')
    folder = (prefix.get('img') if isinstance(prefix, Mapping) else None) or entry.get('images_dir')
    for key in _ANNOTATIONS:
        path = entry.get(key)
        if isinstance(path, str) and (root / path).is_file():
            yield f'{name}.{key}', contents.annotations(root / path)
            if isinstance(folder, str):
                yield f'{name}.images of {key}', contents.images(root / path, root / folder)


def _text(value: str, contents: Contents, folders: Mapping[str, str]) -> str:
    if value in folders:
        return folders[value]
    # A word that happens to be the name of a file in the present folder is a word.
    if os.sep not in value or not os.path.exists(value):
        return value
    path = Path(value)
    return contents.annotations(path) if path.suffix == '.json' else contents.of(path)
