"""Demo images: steel surfaces with defects whose boxes are exact."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from mmdsym.datasets.preparation.demo.defects import PAINTERS
from mmdsym.datasets.preparation.demo.surface import make_surface
from mmdsym.datasets.preparation.leavings import scratch_folder
from mmdsym.datasets.preparation.records import Box, Source, SourceImage
from mmdsym.errors import UserError

CLASSES = list(PAINTERS)
VISIBLE = 12
"""Grey levels of 255 by which a pixel must change to count as part of a defect."""

MIN_CONTRAST = 1.9
"""How much stronger a defect must be, on average, than the grain of its surface."""

MIN_SIDE = 6
MIN_PIXELS = 40
MAX_OVERLAP = 0.1
ATTEMPTS = 40
DEFECT_COUNTS = (1, 2, 3)
DEFECT_COUNT_CHANCES = (0.45, 0.35, 0.2)
EVERY_NTH_VALIDATES = 5


@dataclass
class DemoImage:
    """One generated image.

    Args:
        surface: Grey values before any defect, uint8 of shape (size, size).
        stages: Grey values after each defect, in order, one array for each box.
        boxes: Their boxes, tight around the pixels that changed by `VISIBLE` or more.
    """

    surface: np.ndarray
    stages: list[np.ndarray] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)

    @property
    def pixels(self) -> np.ndarray:
        """The image with all its defects."""
        return self.stages[-1] if self.stages else self.surface


def make_image(index: int, seed: int = 0, size: int = 200) -> DemoImage:
    """Generates one image with one to three defects.

    Args:
        index: Number of the image; its first defect is of class `index % 6`.
        seed: Another seed gives another data set.
        size: Side in pixels.
    """
    rng = np.random.default_rng([seed, index])
    image = DemoImage(_to_grey(make_surface(rng, size)))
    count = rng.choice(DEFECT_COUNTS, p=DEFECT_COUNT_CHANCES)
    kinds = [CLASSES[index % len(CLASSES)], *rng.choice(CLASSES, count - 1)]
    for kind in kinds:
        _add_defect(rng, image, str(kind))
    return image


def visible_bounds(
    before: np.ndarray, after: np.ndarray, min_pixels: int = MIN_PIXELS
) -> tuple[int, int, int, int] | None:
    """Edges (x1, y1, x2, y2) of what changed visibly, in pixels; None when too little did."""
    changed = np.abs(after.astype(int) - before) >= VISIBLE
    if changed.sum() < min_pixels:
        return None
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    x1, x2, y1, y2 = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
    if min(x2 - x1, y2 - y1) < MIN_SIDE:
        return None
    return int(x1), int(y1), int(x2), int(y2)


@contextmanager
def open_demo(count: int, scratch: Path, size: int = 200, seed: int = 0) -> Iterator[Source]:
    """Generates a demo data set and yields it as a source; a fifth of it validates.

    Args:
        count: Number of images, at least 60, so that every class is in every part.
        scratch: Folder below which the images lie for the time of the context.
        size: Side of the images in pixels, at least 64.
        seed: Another seed gives another data set.

    Raises:
        UserError: When the count or size is too small.
    """
    if count < 60:
        raise UserError(f'--demo-images {count} is too few for six classes; give at least 60')
    if size < 64:
        raise UserError(f'--demo-size {size} is too small for defects; give at least 64')
    with scratch_folder(scratch, '.demo') as folder:
        source = Source('demo', folder, list(CLASSES), [])
        for index in tqdm(range(count), desc='generating', unit='image', disable=None):
            source.images.append(_save(index, make_image(index, seed, size), folder))
        source.notes.append('Generated images; real steel looks different in many ways.')
        yield source


def _save(index: int, image: DemoImage, folder: Path) -> SourceImage:
    path = folder / f'demo_{index:04d}.png'
    Image.fromarray(image.pixels).save(path)
    held_out = index % EVERY_NTH_VALIDATES == EVERY_NTH_VALIDATES - 1
    split = 'val' if held_out else 'train'
    return SourceImage(path, path.name, list(image.boxes), split, annotation=path)


def _add_defect(rng: np.random.Generator, image: DemoImage, kind: str) -> None:
    """Paints one defect where it can be seen and hides no other; gives up after some attempts."""
    before = image.pixels
    for _ in range(ATTEMPTS):
        after = _to_grey(before + PAINTERS[kind](rng, len(before)))
        bounds = visible_bounds(before, after)
        if bounds is None or not _stands_out(image.surface, before, after):
            continue
        box = Box(*bounds, label=kind)
        if all(_overlap(box, other) <= MAX_OVERLAP for other in image.boxes):
            image.stages.append(after)
            image.boxes.append(box)
            return


def _stands_out(surface: np.ndarray, before: np.ndarray, after: np.ndarray) -> bool:
    """Whether what changed did so by clearly more than neighbouring pixels differ anyway."""
    change = np.abs(after.astype(int) - before)
    grey = surface.astype(int)
    # Neighbours a few pixels apart: closer ones belong to the same grain.
    grain = np.concatenate([(grey[4:] - grey[:-4]).ravel(), (grey[:, 4:] - grey[:, :-4]).ravel()])
    return change[change >= VISIBLE].mean() >= MIN_CONTRAST * grain.std() / np.sqrt(2)


def _overlap(one: Box, other: Box) -> float:
    """Shared area as a fraction of the smaller box."""
    width = min(one.x2, other.x2) - max(one.x1, other.x1)
    height = min(one.y2, other.y2) - max(one.y1, other.y1)
    return max(width, 0) * max(height, 0) / min(one.area, other.area)


def _to_grey(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
