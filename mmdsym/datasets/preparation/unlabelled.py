"""A plain folder of images as unlabelled data."""

from __future__ import annotations

from pathlib import Path

from mmdsym.datasets.preparation.extra_images import list_folder, new_images
from mmdsym.datasets.preparation.records import Source


def add_unlabelled(source: Source, folder: Path) -> None:
    """Adds all images of a folder to a source's unlabelled ones.

    Files that the source uses itself, because the folder lies inside of it, are not added twice.

    Raises:
        UserError: When the folder is missing or holds no image.
    """
    new = new_images(source, list_folder(folder, '--unlabelled-dir'), folder, 'unlabelled')
    source.unlabelled += new
    source.notes.append(f'{len(new)} unlabelled images come from a folder of their own.')
