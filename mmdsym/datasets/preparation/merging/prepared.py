"""Reading a prepared data set back into records."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdsym.datasets.preparation.boxes import coco_to_edges
from mmdsym.datasets.preparation.inside import inner_path
from mmdsym.datasets.preparation.prepare import WHOLE
from mmdsym.datasets.preparation.records import Box, Source, SourceImage, TileOrigin
from mmdsym.errors import UserError
from mmdsym.tiling import Tiling

SPLITS = ('train', 'val', 'test')
PARTS = ('labelled', 'burn_in', 'calibration', 'unlabelled', 'known_good')
HUMAN = 'human'


@dataclass
class PreparedData:
    """A prepared data set.

    Args:
        source: Its images: those with labels, and the unlabelled ones that never had any.
        subsets: Folder of each choice to its lists of image names.
    """

    source: Source
    subsets: dict[str, dict[str, list[str]]]


def read_prepared(root: Path) -> PreparedData:
    """Reads what `tools/prepare_dataset.py` wrote.

    Raises:
        UserError: When the folder holds no prepared data set, or a file of it is damaged.
    """
    try:
        return _read(root)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f'the annotations in {root} are damaged ({error!r}); prepare that data set again '
            'before merging into it'
        ) from error


def _read(root: Path) -> PreparedData:
    if not (root / 'annotations' / 'train.json').is_file():
        raise UserError(
            f'--merge {root} is no prepared data set (it has no annotations/train.json); name a '
            'folder that this tool wrote'
        )
    images: dict[str, SourceImage] = {}
    classes: list[str] = []
    tiling = None
    for split in SPLITS:
        path = root / 'annotations' / f'{split}.json'
        if path.is_file():
            content = _load(path)
            classes = classes or [category['name'] for category in content['categories']]
            noted = (content.get('info') or {}).get('tiling')
            tiling = Tiling(**noted) if noted else tiling
            for image in _labelled_images(root, path, content, split):
                images[image.name] = image
    source = Source('merged', root, classes, list(images.values()))
    source.tiling, source.whole = tiling, _whole_images(root)
    subsets: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for path in sorted((root / 'annotations').glob('*/*.json')):
        if path.stem in PARTS:
            content = _load(path)
            subsets[path.parent.name][path.stem] = [i['file_name'] for i in content['images']]
            for entry in content['images']:
                if entry['file_name'] not in images:
                    image = _image(root, path, entry)
                    images[image.name] = image
                    source.unlabelled.append(image)
    return PreparedData(source, dict(subsets))


def _load(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f'{path} is damaged ({error!r}); prepare that data set again before merging into it'
        ) from error


def _labelled_images(
    root: Path, path: Path, content: dict[str, Any], split: str
) -> list[SourceImage]:
    labels = {category['id']: category['name'] for category in content['categories']}
    boxes: dict[int, list[Box]] = defaultdict(list)
    for row in content['annotations']:
        edges = coco_to_edges(tuple(row['bbox']))
        ignored = bool(row.get('iscrowd'))
        boxes[row['image_id']].append(Box(*edges, labels[row['category_id']], ignored))
    images = []
    for entry in content['images']:
        image = _image(root, path, entry)
        image.boxes, image.split, image.annotation = boxes[entry['id']], split, path
        image.known_good = bool(entry.get('known_good'))
        image.label_source = entry.get('label_source') or HUMAN
        images.append(image)
    return images


def _whole_images(root: Path) -> list[SourceImage]:
    """The held-out images that tiles were cut from, under the names that they had before."""
    whole = []
    for split in SPLITS:
        path = root / 'annotations' / f'{split}_{WHOLE}.json'
        if path.is_file():
            whole += _labelled_images(root, path, _load(path), split)
    for image in whole:
        image.name = image.name.removeprefix(f'{WHOLE}/')
        image.file_hash = hashlib.sha256(image.path.read_bytes()).hexdigest()
    return whole


def _image(root: Path, path: Path, entry: dict[str, Any]) -> SourceImage:
    name = entry['file_name']
    file = inner_path(root / 'images', name, path)
    size = int(entry['width']), int(entry['height'])
    tile = TileOrigin(**entry['tile']) if 'tile' in entry else None
    return SourceImage(file, name, width=size[0], height=size[1], tile=tile)
