"""Foreign images without a defect, as they get into a factory's unlabelled pool."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import mmcv
import numpy as np
from PIL import Image

from mmdsym.datasets.preparation.leavings import scratch_folder
from mmdsym.datasets.preparation.sources.files import IMAGE_SUFFIXES
from mmdsym.errors import UserError
from mmdsym.free_space import find_free_box

_TILE_SHARES = (0.7, 0.55, 0.45, 0.35)
_MIN_TILE = 24


def make_foreign_pool(
    out: str | Path,
    count: int,
    ann_file: str | Path,
    images_dir: str | Path,
    extra: str | Path | None = None,
    seed: int = 0,
) -> list[Path]:
    """Writes images that show no defect of the data set.

    In turn: clean surface between the labelled boxes of training images, mirrored to full size so
    that its grain stays as large as it is; generated surfaces of other steel; woven and grained
    textures of other materials; and crops of one's own pictures of something else.

    Args:
        out: Folder, which must not exist; it appears when all images are there.
        count: Number of images.
        ann_file: COCO json of labelled training images.
        images_dir: Their folder.
        extra: Folder of further pictures without a defect.
        seed: Another seed gives another pool.

    Returns:
        The images.

    Raises:
        UserError: The folder exists, nothing can be read, or no image has clean surface.
    """
    out = Path(out)
    if out.exists():
        raise UserError(f'{out} exists: name another folder for the foreign images, or remove it.')
    if count < 1:
        raise UserError(f'a pool of {count} foreign images is none: give 1 or more.')
    # Imported late: whoever measures an existing pool generates nothing.
    from mmdsym.datasets.preparation.demo.surface import make_surface

    rng = np.random.default_rng(seed)
    tiles = _clean_tiles(rng, Path(ann_file), Path(images_dir))
    name, first = next(tiles)
    size = first.shape[0]
    makers: dict[str, Callable[[], np.ndarray]] = {
        'clean': lambda: next(tiles)[1],
        'steel': lambda: make_surface(rng, size),
        'texture': lambda: other_material(rng, size),
    }
    if extra is not None:
        pictures = cycle(_pictures(Path(extra)))
        makers['extra'] = lambda: _square_crop(rng, next(pictures), size)
    with scratch_folder(out.parent, '.unfinished_pool') as folder:
        draft = folder / 'pool'
        draft.mkdir()
        for index, (kind, make) in zip(range(count), cycle(makers.items()), strict=False):
            pixels = np.clip(np.rint(make()), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(draft / f'{kind}_{index:04d}.png')
        os.replace(draft, out)
    return images_in(out)


def images_in(folder: str | Path) -> list[Path]:
    """Returns the images of a folder, sorted.

    Raises:
        UserError: There is none.
    """
    folder = Path(folder)
    found = sorted(p for p in folder.glob('*') if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise UserError(f'{folder} holds no image: correct the folder of foreign images.')
    return found


def other_material(rng: np.random.Generator, size: int) -> np.ndarray:
    """Returns a texture that is not steel: a weave or a wavy grain, (size, size), in 0..255."""
    y, x = np.mgrid[:size, :size] / size * 2 * np.pi
    turn = rng.uniform(0, np.pi)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    bend = rng.uniform(0.2, 1.5) * np.sin(along * rng.uniform(0.5, 2) + rng.uniform(0, 6))
    if rng.random() < 0.5:
        threads = rng.uniform(8, 30)
        pattern = np.sin(along * threads) * np.sin(across * threads)
    else:
        pattern = np.sin((across + bend) * rng.uniform(4, 20))
    noise = rng.standard_normal((size, size))
    return rng.uniform(70, 180) + rng.uniform(15, 45) * pattern + rng.uniform(2, 8) * noise


def _clean_tiles(
    rng: np.random.Generator, ann_file: Path, images_dir: Path
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields tiles without end, a new place each time, mirrored to the size of their image."""
    try:
        content = json.loads(ann_file.read_text(encoding='utf-8'))
        boxes: dict[int, list] = {image['id']: [] for image in content['images']}
        for entry in content['annotations']:
            x, y, width, height = entry['bbox']
            boxes[entry['image_id']].append([x, y, x + width, y + height])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f'{ann_file} cannot be read as COCO annotations ({error!r}): give the labelled.json '
            'that tools/prepare_dataset.py wrote.'
        ) from None
    found_any = True
    while found_any:
        found_any = False
        for index in rng.permutation(len(content['images'])):
            image = content['images'][index]
            tile = _tile(rng, images_dir / image['file_name'], boxes[image['id']])
            if tile is not None:
                found_any = True
                yield image['file_name'], tile
    raise UserError(f'{ann_file} lists no image with clean surface: give other labelled images.')


def _tile(rng: np.random.Generator, path: Path, boxes: list) -> np.ndarray | None:
    pixels = _read_grey(path)
    height, width = pixels.shape
    for share in _TILE_SHARES:
        side = int(share * min(height, width))
        place = find_free_box(rng, (width, height), (side, side), boxes)
        if side >= _MIN_TILE and place is not None:
            left, top = place[:2].astype(int)
            tile = pixels[top : top + side, left : left + side]
            more = min(height, width) - side
            return np.pad(tile, ((0, more), (0, more)), mode='symmetric')
    return None


def _pictures(folder: Path) -> list[np.ndarray]:
    return [_read_grey(path) for path in images_in(folder)]


def _read_grey(path: Path) -> np.ndarray:
    try:
        pixels = mmcv.imread(path, flag='grayscale')
    except (OSError, ValueError):
        pixels = None
    if pixels is None:
        raise UserError(f'the image {path} cannot be read: restore or remove it.')
    return pixels


def _square_crop(rng: np.random.Generator, pixels: np.ndarray, size: int) -> np.ndarray:
    """A random crop of a picture; smaller pictures are mirrored to fill it."""
    more = [max(0, size - side) for side in pixels.shape]
    pixels = np.pad(pixels, ((0, more[0]), (0, more[1])), mode='symmetric')
    top, left = (int(rng.integers(0, side - size + 1)) for side in pixels.shape)
    return pixels[top : top + size, left : left + size]
