"""Hands an adapted CLIP model over as a folder, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from mmdsym.atomic_file import write_file
from mmdsym.clip.extent_head import ExtentHead
from mmdsym.clip.model_building import CONFIG_NAME, EXTENT_NAME, WEIGHTS_NAME, ClipModel


def write_clip(
    folder: Path, built: ClipModel, settings: Mapping, extent_head: ExtentHead | None = None
) -> None:
    """Writes a model so that ``build_clip`` finds it as ``weights``, and open_clip as a folder.

    Everything is written and synced in a temporary folder beside it, and then renamed: a folder
    with a config is complete, whenever the process was killed.

    Args:
        folder: Created where it is missing. Files of others in it stay.
        built: The model.
        settings: Becomes :attr:`ClipModel.settings`; of what json can hold.
        extent_head: Becomes :attr:`ClipModel.extent_head`.

    Raises:
        UserError: The disk is full or does not let us write.
    """
    draft = folder.with_name(f'.{folder.name}.unfinished')
    shutil.rmtree(draft, ignore_errors=True)
    try:
        for name, content in _files(built, settings, extent_head).items():
            write_file(draft / name, content)
            _sync_folder((draft / name).parent)
        _publish(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _files(built: ClipModel, settings: Mapping, extent_head: ExtentHead | None) -> dict[str, bytes]:
    """Name to content, the config last."""
    from safetensors.torch import save

    modules = {WEIGHTS_NAME: built.network, EXTENT_NAME: extent_head}
    files = {
        name: save({k: value.contiguous().cpu() for k, value in module.state_dict().items()})
        for name, module in modules.items()
        if module is not None
    }
    content = dict(
        model_cfg=built.config,
        preprocess_cfg=dict(size=built.image_size, mean=list(built.mean), std=list(built.std)),
        mmdsym={**settings, 'extent_width': None if extent_head is None else extent_head.width},
    )
    return {**files, CONFIG_NAME: (json.dumps(content, indent=2) + '\n').encode()}


def _publish(draft: Path, folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        # Without its config a folder is no model: none holds the files of two.
        for name in (CONFIG_NAME, EXTENT_NAME):
            (folder / name).unlink(missing_ok=True)
        _sync_folder(folder)
        for name in (EXTENT_NAME, WEIGHTS_NAME, CONFIG_NAME):
            if (draft / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(draft / name, folder / name)
                _sync_folder((folder / name).parent)
    else:
        os.replace(draft, folder)
    _sync_folder(folder)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk itself, where the system offers that."""
    if not hasattr(os, 'O_DIRECTORY'):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
