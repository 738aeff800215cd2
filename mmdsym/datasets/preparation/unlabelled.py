"""A plain folder of images as unlabelled data."""

from __future__ import annotations

from pathlib import Path

from mmdsym.datasets.preparation.records import Source, SourceImage
from mmdsym.datasets.preparation.sources.files import list_images, names_for
from mmdsym.errors import UserError


def add_unlabelled(source: Source, folder: Path) -> None:
    """Adds all images of a folder to a source's unlabelled ones.

    Files that the source uses itself, because the folder lies inside of it, are not added twice.

    Raises:
        UserError: When the folder is missing or holds no image.
    """
    if not folder.is_dir():
        raise UserError(f'--unlabelled-dir {folder} is no folder; give one with images')
    paths = list_images(folder)
    if not paths:
        raise UserError(f'--unlabelled-dir {folder} holds no image; give a folder with images')
    used = source.images + source.unlabelled
    known = {image.path.resolve() for image in used}
    new = [path for path in paths if path.resolve() not in known]
    prefix = 'unlabelled'
    while any(image.name.split('/')[0] == prefix for image in used):
        prefix += '_'
    names = names_for(new, folder)
    source.unlabelled += [SourceImage(path, f'{prefix}/{names[path]}') for path in new]
    source.notes.append(f'{len(new)} unlabelled images come from a folder of their own.')
