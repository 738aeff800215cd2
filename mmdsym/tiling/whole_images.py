"""The whole images that a tiled detector is run on: a prepared data set's, or a folder's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mmdsym.datasets.preparation.inside import inner_path
from mmdsym.datasets.preparation.inspection import readable_size
from mmdsym.datasets.preparation.prepare import WHOLE
from mmdsym.datasets.preparation.sources.files import list_images
from mmdsym.errors import UserError
from mmdsym.tiling.grid import Tiling
from mmdsym.trained_run import TrainedRun, dataset_for_testing


@dataclass(frozen=True)
class WholeImages:
    """Images with or without truth.

    Attributes:
        folder: Where their names start.
        images: Their entries in the COCO manner: `id`, `file_name`, `width`, `height`.
        categories: The same of the classes, in the order of labels.
        annotations: COCO json with the truth, or None.
    """

    folder: Path
    images: list[dict]
    categories: list[dict]
    annotations: Path | None = None

    def path(self, entry: dict) -> Path:
        """The file of an entry."""
        return self.folder / entry['file_name']


def from_json(annotations: Path, folder: Path, classes: tuple[str, ...]) -> WholeImages:
    """Reads the images of a COCO json.

    Args:
        annotations: The json.
        folder: Where its file names start.
        classes: Those of the detector; the json must have the same.

    Raises:
        UserError: The json is missing or damaged, has other classes, or names a file elsewhere.
    """
    if not annotations.is_file():
        raise UserError(
            f"'{annotations}' does not exist; prepare the data with --tile, or name --ann or "
            '--images.'
        )
    try:
        content = json.loads(annotations.read_bytes())
        names = tuple(category['name'] for category in content['categories'])
        images = list(content['images'])
        file_names = [str(entry['file_name']) for entry in images]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(
            f"'{annotations}' is no COCO json of images ({error!r}); name another with --ann."
        ) from error
    for name in file_names:
        inner_path(folder, name, annotations)
    if names != classes:
        raise UserError(
            f"'{annotations}' has the classes {', '.join(names)}, but the detector knows "
            f'{", ".join(classes)}; name the json of its own data.'
        )
    return WholeImages(folder, images, content['categories'], annotations)


def from_folder(folder: Path, classes: tuple[str, ...]) -> WholeImages:
    """Lists the images of a folder and its sub-folders.

    Raises:
        UserError: There is none, or one cannot be read.
    """
    paths = list_images(folder) if folder.is_dir() else []
    if not paths:
        raise UserError(f"'{folder}' is no folder with images; correct --images.")
    images = []
    for number, path in enumerate(paths, start=1):
        size = readable_size(path)
        if size is None:
            raise UserError(f"the image '{path}' cannot be read; repair or remove it.")
        name = path.relative_to(folder).as_posix()
        images.append({'id': number, 'file_name': name, 'width': size[0], 'height': size[1]})
    categories = [{'id': number, 'name': name} for number, name in enumerate(classes, start=1)]
    return WholeImages(folder, images, categories)


def validation_images(run: TrainedRun) -> WholeImages:
    """The held-out images that the run's own validation tiles were cut from.

    Raises:
        UserError: The run's data were prepared without tiles.
    """
    tiles = _validation_json(run)
    annotations = tiles.with_name(f'{tiles.stem}_{WHOLE}.json')
    return from_json(annotations, tiles.parent.parent / 'images', run.classes)


def tiling_of(run: TrainedRun) -> Tiling | None:
    """The tiles that the run was trained on, or None where its data have none or are gone.

    Raises:
        UserError: The run's data are damaged.
    """
    path = _validation_json(run)
    try:
        content = json.loads(path.read_bytes()) if path.is_file() else {}
        noted = (content.get('info') or {}).get('tiling')
        return Tiling(**noted) if noted else None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"'{path}' does not say how its images were cut ({error}); prepare the data again."
        ) from error


def _validation_json(run: TrainedRun) -> Path:
    dataset = dataset_for_testing(run.config)
    return Path(dataset.get('data_root') or '') / (dataset.get('ann_file') or '')
