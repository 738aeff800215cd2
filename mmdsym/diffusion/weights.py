"""A trained diffusion model as a diffusers folder, which other tools can load."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from diffusers import EDMDPMSolverMultistepScheduler, UNet2DModel
from safetensors import SafetensorError

from mmdsym.atomic_folder import drafted_folder
from mmdsym.errors import UserError

_UNET, _SCHEDULER, _DESCRIPTION = 'unet', 'scheduler', 'mmdsym.json'
_SUFFIXES = ('.json', '.safetensors')


@dataclass(frozen=True)
class DiffusionDescription:
    """What the files of diffusers do not say about a model.

    Attributes:
        classes: Names, in the order of the labels.
        channels: 1 for grey images, 3 for colour.
        crop_size: Side of the regions in pixels.
        patch_size: Side of the patches in pixels.
        min_side: Smallest side of a window in pixels of the image.
        contexts: Least and largest side of a window in units of the box's longer side.
    """

    classes: tuple[str, ...]
    channels: int
    crop_size: int
    patch_size: int
    min_side: int
    contexts: tuple[float, float]


def save_diffusion(
    folder: str | Path,
    unet: UNet2DModel,
    scheduler: EDMDPMSolverMultistepScheduler,
    about: DiffusionDescription,
) -> None:
    """Writes a folder with ``unet/``, ``scheduler/`` and ``mmdsym.json``, whole or not at all.

    An earlier model of this name is replaced once the new one is complete. Files of others beside
    it stay. What a killed process has left is cleared up first.

    Raises:
        UserError: The disk is full or does not let us write; an earlier folder stays as it was.
    """
    folder = Path(folder)
    try:
        with drafted_folder(folder, (_UNET, _SCHEDULER, _DESCRIPTION)) as draft:
            unet.save_pretrained(draft / _UNET, safe_serialization=True)
            scheduler.save_pretrained(draft / _SCHEDULER)
            (draft / _DESCRIPTION).write_text(json.dumps(asdict(about), indent=2))
    # safetensors reports a full disk as an error of its own.
    except (OSError, SafetensorError) as error:
        raise UserError(
            f'the diffusion model cannot be written to {folder} ({error}): free some space, or '
            'make the folder writable, then go on with --resume.'
        ) from error


def load_diffusion(
    folder: str | Path,
) -> tuple[UNet2DModel, EDMDPMSolverMultistepScheduler, DiffusionDescription]:
    """Reads what :func:`save_diffusion` wrote.

    Raises:
        UserError: The folder is missing, incomplete or damaged.
    """
    folder = Path(folder)
    if not (folder / _DESCRIPTION).is_file():
        raise UserError(
            f'there is no diffusion model in {folder}: a config with parts makes it when '
            'tools/train.py starts it; for others train configs/diffusion/'
            'defect_inpaint_neu_40pct.py first, or correct weights in the config.'
        )
    try:
        about = json.loads((folder / _DESCRIPTION).read_text())
        about = DiffusionDescription(
            **{**about, 'classes': tuple(about['classes']), 'contexts': tuple(about['contexts'])}
        )
        unet = UNet2DModel.from_pretrained(
            folder,
            subfolder=_UNET,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,
        )
        scheduler = EDMDPMSolverMultistepScheduler.from_pretrained(
            folder, subfolder=_SCHEDULER, local_files_only=True
        )
    except (OSError, ValueError, TypeError, KeyError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f'the diffusion model in {folder} is damaged ({reason}): train it again, or restore '
            'the folder.'
        ) from None
    return unet.eval(), scheduler, about


def diffusion_digest(folder: str | Path) -> str:
    """Returns the SHA-256 of the files of a model, with their names; files of others are not it."""
    folder = Path(folder)
    parts = (folder / _DESCRIPTION, *folder.glob(f'{_UNET}/*'), *folder.glob(f'{_SCHEDULER}/*'))
    digest = hashlib.sha256()
    for path in sorted(parts):
        if path.is_file() and path.suffix in _SUFFIXES:
            digest.update(path.relative_to(folder).as_posix().encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
