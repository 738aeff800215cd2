"""Large demo images: 3000 x 2000 pixels of rolled steel with defects of about 10 pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom
from tqdm import tqdm

from mmdsym.datasets.preparation.demo.generate import EVERY_NTH_VALIDATES, visible_bounds
from mmdsym.datasets.preparation.leavings import scratch_folder
from mmdsym.datasets.preparation.records import Box, Source, SourceImage
from mmdsym.errors import UserError

WIDTH, HEIGHT = 3000, 2000
DEFECTS_PER_IMAGE = (6, 18)
PATCH = 32
"""Side in pixels of the square that a defect is painted into."""

MIN_IMAGES = 5
MIN_PIXELS = 20
COARSE = 8
"""Broad structures are computed on a grid this much coarser, since nobody sees the difference."""

ATTEMPTS = 20


def paint_pit(rng: np.random.Generator) -> np.ndarray:
    """A dark hole with a bright rim on one side."""
    along, across = _turned(rng.uniform(0, np.pi))
    radius = rng.uniform(3.0, 4.4)
    distance = np.hypot(along / rng.uniform(1, 1.35), across) / radius
    rim = np.exp(-(((distance - 1.25) / 0.18) ** 2)) * (across < 0)
    return -rng.uniform(28, 70) * _soft(1 - distance, 0.25) + rng.uniform(10, 25) * rim


def paint_chip(rng: np.random.Generator) -> np.ndarray:
    """A bright flake with corners."""
    along, across = _turned(rng.uniform(0, np.pi))
    corners = np.maximum(
        np.abs(along) / rng.uniform(3.2, 4.8), np.abs(across) / rng.uniform(2.8, 4.2)
    )
    cut = np.maximum(corners, (along + across) / rng.uniform(3.8, 6))
    return rng.uniform(28, 65) * _soft(1 - cut, 0.15)


def paint_nick(rng: np.random.Generator) -> np.ndarray:
    """A short dark stroke, slightly bent, bright along one side."""
    along, across = _turned(rng.choice([-1, 1]) * rng.uniform(0.5, 1.1))
    bent = across - rng.uniform(-0.02, 0.02) * along**2
    ends = _soft(1 - np.abs(along) / rng.uniform(5, 7), 0.12)
    stroke = np.exp(-((bent / rng.uniform(1.3, 1.9)) ** 2))
    edge = np.exp(-(((bent - 2.6) / 1.0) ** 2))
    return (-rng.uniform(35, 80) * stroke + rng.uniform(12, 25) * edge) * ends


PAINTERS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    'pit': paint_pit,
    'chip': paint_chip,
    'nick': paint_nick,
}


def make_large_image(
    index: int, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)
) -> tuple[np.ndarray, list[Box]]:
    """Generates one image.

    Args:
        index: Number of the image.
        seed: Another seed gives another data set.
        size: (width, height) in pixels, each at least 64.

    Returns:
        Grey values, uint8 of shape (height, width), and the boxes, tight around what changed.
    """
    rng = np.random.default_rng([seed, index, 3])
    pixels = _to_grey(_surface(rng, *size))
    boxes: list[Box] = []
    fewest, most = DEFECTS_PER_IMAGE
    # As dense on a smaller image, with one defect at least.
    density = size[0] * size[1] / (WIDTH * HEIGHT)
    for _ in range(max(round(density * rng.integers(fewest, most + 1)), 1)):
        kind = str(rng.choice(list(PAINTERS)))
        _add_defect(rng, pixels, boxes, kind)
    return pixels, boxes


@contextmanager
def open_large_demo(count: int, scratch: Path, seed: int = 0) -> Iterator[Source]:
    """Generates large images and yields them as a source; a fifth of them validates.

    Args:
        count: Number of images, at least 5.
        scratch: Folder below which the images lie for the time of the context.
        seed: Another seed gives another data set.

    Raises:
        UserError: When the count is too small.
    """
    if count < MIN_IMAGES:
        raise UserError(
            f'--demo-images {count} leaves none to validate; give at least {MIN_IMAGES}'
        )
    with scratch_folder(scratch, '.demo') as folder:
        source = Source('demo', folder, list(PAINTERS), [])
        for index in tqdm(range(count), desc='generating', unit='image', disable=None):
            pixels, boxes = make_large_image(index, seed)
            path = folder / f'large_{index:03d}.png'
            # Noise hardly compresses: the fastest level loses next to nothing.
            Image.fromarray(pixels).save(path, compress_level=1)
            held_out = index % EVERY_NTH_VALIDATES == EVERY_NTH_VALIDATES - 1
            split = 'val' if held_out else 'train'
            source.images.append(SourceImage(path, path.name, boxes, split, annotation=path))
        source.notes.append('Generated images; real steel looks different in many ways.')
        yield source


def _surface(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Brushed grain, uneven light, stains, and dust that is no defect."""
    grey = np.full((height, width), rng.uniform(95, 165), dtype=np.float32)
    grey += rng.uniform(6, 14) * _broad(rng, width, height, 60, 60)
    grey += rng.uniform(4, 8) * _broad(rng, width, height, 1, 40)
    grain = rng.standard_normal((height, width), dtype=np.float32)
    along_rolling = gaussian_filter(grain, (0.7, 6), mode='wrap')
    grey += rng.uniform(2, 5) * along_rolling / along_rolling.std()
    grey += rng.uniform(1, 2.5) * rng.standard_normal((height, width), dtype=np.float32)
    _add_harmless_marks(rng, grey)
    return grey


def _add_harmless_marks(rng: np.random.Generator, grey: np.ndarray) -> None:
    """Specks of two pixels and soft stains, which a detector has to tell from defects."""
    height, width = grey.shape
    for _ in range(round(width * height / 20000)):
        x, y = rng.integers(0, width - 2), rng.integers(0, height - 2)
        grey[y : y + 2, x : x + 2] += rng.choice([-1, 1]) * rng.uniform(25, 60)
    for _ in range(round(width * height / 100000)):
        x, y = rng.integers(0, width - PATCH), rng.integers(0, height - PATCH)
        along, across = _turned(rng.uniform(0, np.pi))
        distance = np.hypot(along / rng.uniform(5, 8), across / rng.uniform(3.5, 5))
        stain = rng.choice([-1, 1]) * rng.uniform(12, 24) * np.exp(-(distance**2))
        grey[y : y + PATCH, x : x + PATCH] += stain


def _broad(
    rng: np.random.Generator, width: int, height: int, down: float, right: float
) -> np.ndarray:
    """Smooth noise of standard deviation 1, blurred by up to so many coarse pixels each way."""
    shape = (height // COARSE + 2, width // COARSE + 2)
    # Structures as broad as the image would be one shade of grey, and a very dark or bright one.
    blur = min(down, shape[0] / 4), min(right, shape[1] / 4)
    noise = gaussian_filter(rng.standard_normal(shape), blur, mode='wrap')
    noise /= noise.std()
    return zoom(noise.astype(np.float32), COARSE, order=1)[:height, :width]


def _add_defect(rng: np.random.Generator, pixels: np.ndarray, boxes: list[Box], kind: str) -> None:
    """Paints one defect into the pixels, clear of all others."""
    height, width = pixels.shape
    for _ in range(ATTEMPTS):
        x, y = int(rng.integers(0, width - PATCH)), int(rng.integers(0, height - PATCH))
        patch = pixels[y : y + PATCH, x : x + PATCH]
        after = _to_grey(patch + PAINTERS[kind](rng))
        bounds = visible_bounds(patch, after, MIN_PIXELS)
        near = any(abs(box.x1 - x) < 2 * PATCH and abs(box.y1 - y) < 2 * PATCH for box in boxes)
        if bounds is not None and not near:
            pixels[y : y + PATCH, x : x + PATCH] = after
            x1, y1, x2, y2 = bounds
            boxes.append(Box(x + x1, y + y1, x + x2, y + y2, kind))
            return


def _turned(angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each pixel of a patch from its centre, along and across a direction."""
    y, x = np.mgrid[:PATCH, :PATCH] - (PATCH - 1) / 2
    return x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)


def _soft(field: np.ndarray, softness: float) -> np.ndarray:
    return 0.5 * (1 + np.tanh(field / softness))


def _to_grey(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
