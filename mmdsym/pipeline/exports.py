"""How the trainings of parts hand over what they have made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmdsym.errors import UserError


@dataclass(frozen=True)
class Export:
    """What a hook writes at the end of a training.

    Attributes:
        title: What it is, in a few words.
        argument: The hook's argument that names the folder.
        last_file: The file that is there only when the folder is complete.
    """

    title: str
    argument: str
    last_file: str


EXPORTS = {
    'DiffusionExportHook': Export('diffusion model', 'folder', 'mmdsym.json'),
    'CLIPExportHook': Export('CLIP model', 'out_dir', 'open_clip_config.json'),
}
"""Hook to what it writes. Another kind of part needs an export hook, and an entry here."""


def find_export(cfg: Config) -> tuple[Export, ConfigDict]:
    """Returns what the training of a part hands over, and its hook's entry in the config.

    Raises:
        UserError: The config has no such hook.
    """
    for hook in cfg.get('custom_hooks') or ():
        export = EXPORTS.get(str(hook.get('type')).split('.')[-1])
        if export is not None:
            return export, hook
    raise UserError(
        f'{cfg.filename} trains nothing that a part could be: add one of '
        f'{", ".join(f"mmdsym.{name}" for name in EXPORTS)} to its custom_hooks.'
    )


def is_exported(cfg: Config) -> bool:
    """Returns whether the folder that a part's config names is complete."""
    export, hook = find_export(cfg)
    return (Path(hook[export.argument]) / export.last_file).is_file()
