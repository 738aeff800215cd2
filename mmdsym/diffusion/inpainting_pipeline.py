"""Stable-Diffusion inpainting pipelines: where their weights are, and how they are loaded."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mmdsym.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_HUB_ID = re.compile(r'[\w.-]+/[\w.-]+')
_INDEX = 'model_index.json'
# Parts that the pipelines can do without; surfaces need no safety checker.
_OPTIONAL = ('safety_checker', 'feature_extractor', 'image_encoder')
_LIBRARIES = ('diffusers', 'transformers')
_NETWORKS = ('unet', 'vae', 'text_encoder', 'text_encoder_2')
# What diffusers reads from a folder; pickled weights beside them are never opened.
_READ_SUFFIXES = ('.json', '.safetensors', '.txt', '.model')
_CHUNK = 1 << 22


def require_transformers() -> None:
    """Makes sure that the package of the text encoders is there.

    Raises:
        UserError: It is not installed.
    """
    if importlib.util.find_spec('transformers') is None:
        raise UserError(
            'Stable Diffusion needs the package transformers, which is not installed: '
            "pip install 'transformers>=4.41.2'."
        )


def check_pipeline(model: str, revision: str | None) -> None:
    """Refuses what cannot be loaded, as far as it can be told without the network.

    Args:
        model: A folder that diffusers wrote, or a hub id such as ``owner/name``.
        revision: Commit or tag of a hub id.

    Raises:
        UserError: A folder is missing or incomplete, or a hub id has no revision.
    """
    folder = Path(model)
    if folder.is_dir():
        _check_folder(folder)
    elif not _HUB_ID.fullmatch(model):
        raise UserError(
            f"there is no folder '{model}': let model name a diffusers folder of an inpainting "
            "pipeline, or a hub id such as 'owner/name'."
        )
    elif revision is None:
        raise UserError(
            f"there is no folder '{model}': correct the path, or, if it is a hub id, set revision "
            'to one of its commits, so that it stays known what painted the images.'
        )


def _check_folder(folder: Path) -> None:
    try:
        index = json.loads((folder / _INDEX).read_text(encoding='utf-8'))
        libraries = {k: entry[0] for k, entry in index.items() if isinstance(entry, list)}
    except FileNotFoundError:
        raise UserError(
            f'{folder} has no {_INDEX}: save the pipeline with diffusers '
            '(pipeline.save_pretrained), or name the folder that holds it.'
        ) from None
    except (ValueError, AttributeError, IndexError, OSError) as error:
        raise UserError(
            f'{folder / _INDEX} cannot be read ({error}): save the pipeline again.'
        ) from None
    parts = {part: library for part, library in libraries.items() if library}
    _refuse_code(folder, parts)
    for part in parts:
        place = folder / part
        if part in _OPTIONAL:
            continue
        if not place.is_dir():
            raise UserError(f'{folder} lacks the part {part}: copy the whole pipeline again.')
        if part in _NETWORKS and not any(place.glob('*.safetensors')):
            raise UserError(
                f'{place} has no weights as .safetensors: save the pipeline with '
                'safe_serialization=True, or download that format.'
            )


def _refuse_code(folder: Path, parts: Mapping[str, str]) -> None:
    """Refuses a pipeline that brings Python of its own, which older diffusers would run."""
    code = next(folder.rglob('*.py'), None)
    if code is not None:
        raise UserError(
            f'{code} is Python, and what lies beside weights is never run: use a pipeline that '
            'needs no code of its own, or remove the file.'
        )
    for part, library in parts.items():
        # The safety checker of old pipelines comes from a module of diffusers, and is not loaded.
        if library not in _LIBRARIES and part != 'safety_checker':
            raise UserError(
                f"the part {part} of {folder} comes from '{library}', but only diffusers and "
                'transformers are trusted: use another pipeline.'
            )


def pipeline_digest(model: str, revision: str | None) -> str:
    """Returns what tells a pipeline from others.

    SHA-256 over the files of a folder, with their names; id and revision of a hub id.
    """
    folder = Path(model)
    if not folder.is_dir():
        return f'{model}@{revision}'
    digest = hashlib.sha256()
    for path in sorted(folder.rglob('*')):
        if path.is_file() and path.suffix in _READ_SUFFIXES:
            digest.update(path.relative_to(folder).as_posix().encode() + b'\0')
            digest.update(_file_digest(path))
    return digest.hexdigest()


def _file_digest(path: Path) -> bytes:
    digest = hashlib.sha256()
    # Weights are larger than what one wants to hold in memory twice.
    with open(path, 'rb') as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()


def load_pipeline(
    model: str, revision: str | None, dtype: torch.dtype, device: str
) -> DiffusionPipeline:
    """Loads an inpainting pipeline with DPM-Solver++ as its sampler (arXiv 2211.01095).

    Raises:
        UserError: It cannot be loaded or, for a hub id, fetched.
    """
    from diffusers import AutoPipelineForInpainting, DPMSolverMultistepScheduler

    is_folder = Path(model).is_dir()
    try:
        pipeline = AutoPipelineForInpainting.from_pretrained(
            model,
            revision=None if is_folder else revision,
            local_files_only=is_folder,
            use_safetensors=True,
            safety_checker=None,
            requires_safety_checker=False,
            dtype=dtype,
        )
    # diffusers, transformers and hub clients raise errors of many kinds.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        cure = (
            'save or copy the pipeline again'
            if is_folder
            else 'download it on a machine with network and let model name the folder'
        )
        raise UserError(
            f"the inpainting pipeline '{model}' cannot be loaded ({reason}): {cure}."
        ) from error
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(
        pipeline.scheduler.config, algorithm_type='dpmsolver++'
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)
