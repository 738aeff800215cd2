"""Images of a folder of their own, beside the annotated source."""

from __future__ import annotations

from pathlib import Path

from mmdsym.datasets.preparation.records import Source, SourceImage
from mmdsym.datasets.preparation.sources.files import list_images, names_for
from mmdsym.errors import UserError


def list_folder(folder: Path, option: str) -> list[Path]:
    """All images of a folder and its sub-folders, sorted.

    Args:
        folder: The folder.
        option: The option that named it, for messages.

    Raises:
        UserError: When the folder is missing or holds no image.
    """
    if not folder.is_dir():
        raise UserError(f'{option} {folder} is no folder; give one with images')
    paths = list_images(folder)
    if not paths:
        raise UserError(f'{option} {folder} holds no image; give a folder with images')
    return paths


def new_images(source: Source, paths: list[Path], folder: Path, prefix: str) -> list[SourceImage]:
    """Records of those images that the source does not use itself.

    Args:
        source: The source; its files may lie in the same folder.
        paths: Images below the folder.
        folder: Names are relative to it where file names alone collide.
        prefix: First part of their names in the prepared data set; underscores are added until no
            other image has it.
    """
    used = source.images + source.unlabelled
    known = {image.path.resolve() for image in used}
    new = [path for path in paths if path.resolve() not in known]
    while any(image.name.split('/')[0] == prefix for image in used):
        prefix += '_'
    names = names_for(new, folder)
    return [SourceImage(path, f'{prefix}/{names[path]}') for path in new]
