"""Pascal VOC folders: JPEGImages/ with Annotations/, or XML files anywhere beside images."""

from __future__ import annotations

from pathlib import Path

from mmdsym.datasets.preparation.records import Source, SourceImage
from mmdsym.datasets.preparation.sources.files import (
    list_files,
    list_images,
    names_for,
    read_lines,
    split_of_folder,
    subfolder,
)
from mmdsym.datasets.preparation.sources.xml import attach_voc_annotations

LIST_FILES = {'train': 'train', 'val': 'val', 'test': 'test', 'trainval': 'train'}


def is_voc(root: Path) -> bool:
    """Whether there is any XML file besides images."""
    return bool(list_files(root, {'.xml'})) and bool(list_images(root))


def read_voc(root: Path, layout: str = 'voc') -> Source:
    """Reads all images with their XML files.

    The split comes from ImageSets/Main/*.txt, else from folders called train, val and so on, else
    it stays open.

    Args:
        root: The folder.
        layout: Name of the layout for the data card.

    Raises:
        UserError: When a list of ImageSets/Main/ is no text.
    """
    image_folder = subfolder(root, 'JPEGImages', 'IMAGES') or root
    annotation_folder = subfolder(root, 'Annotations') or root
    paths = list_images(image_folder)
    names = names_for(paths, root)
    listed = _image_sets(root)
    images = [
        SourceImage(
            path,
            names[path],
            split=listed.get(path.stem) if listed else split_of_folder(path, root),
        )
        for path in paths
    ]
    files = list_files(annotation_folder, {'.xml'})
    problems, notes = attach_voc_annotations(images, files, root)
    classes = sorted({label for image in images for label in image.labels})
    return Source(layout, root, classes, images, problems, notes)


def _image_sets(root: Path) -> dict[str, str]:
    """Image stem to split, as ImageSets/Main/ has it; a more specific list wins.

    Raises:
        UserError: When a list is no text.
    """
    folder = root / 'ImageSets' / 'Main'
    splits: dict[str, str] = {}
    for stem, split in LIST_FILES.items():
        path = folder / f'{stem}.txt'
        if path.is_file():
            for line in read_lines(path):
                splits.setdefault(line.split()[0], split)
    return splits
