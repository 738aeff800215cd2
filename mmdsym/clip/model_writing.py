"""Hands an adapted CLIP model over as a folder, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mmdsym.atomic_file import write_file
from mmdsym.atomic_folder import drafted_folder
from mmdsym.clip.extent_head import ExtentHead
from mmdsym.clip.model_building import CONFIG_NAME, EXTENT_NAME, WEIGHTS_NAME, ClipModel
from mmdsym.errors import UserError

_OWN = tuple(Path(name).parts[0] for name in (CONFIG_NAME, EXTENT_NAME, WEIGHTS_NAME))


def write_clip(
    folder: Path, built: ClipModel, settings: Mapping, extent_head: ExtentHead | None = None
) -> None:
    """Writes a model so that ``build_clip`` finds it as ``weights``, and open_clip as a folder.

    Everything is written and synced in a temporary folder beside it, and then renamed: a folder
    with a config is complete, whenever the process was killed. An earlier model is replaced.

    Args:
        folder: Created where it is missing. Files of others in it stay.
        built: The model.
        settings: Becomes :attr:`ClipModel.settings`; of what json can hold.
        extent_head: Becomes :attr:`ClipModel.extent_head`.

    Raises:
        UserError: The disk is full or does not let us write.
    """
    # A link leads to where the model is to lie.
    folder = folder.resolve()
    try:
        with drafted_folder(folder, _OWN) as draft:
            for name, content in _files(built, settings, extent_head).items():
                write_file(draft / name, content)
    except OSError as error:
        raise UserError(
            f'the CLIP model cannot be written to {folder} ({error.strerror or error}): free some '
            'space, or make the folder writable, then go on with --resume.'
        ) from error


def _files(built: ClipModel, settings: Mapping, extent_head: ExtentHead | None) -> dict[str, bytes]:
    """Name to content."""
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
