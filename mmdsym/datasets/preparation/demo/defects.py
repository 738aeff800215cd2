"""Six kinds of rolled-steel defects, named and shaped after those of NEU-DET.

Each function paints one defect: it returns by how many grey levels the surface changes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mmdsym.datasets.preparation.demo.noise import smooth_noise, soft_step, turned_grid

Painter = Callable[[np.random.Generator, int], np.ndarray]


def paint_crazing(rng: np.random.Generator, size: int) -> np.ndarray:
    """A net of fine, broken, mostly parallel cracks in a region."""
    scale = size / 200
    angle = rng.normal(0, 0.25)
    region = _region(rng, size, (0.14, 0.32), (0.11, 0.26), angle)
    cracks = np.zeros((size, size))
    for _ in range(2):
        relief = smooth_noise(rng, size, 6.5 * scale, 2.6 * scale, angle)
        present = soft_step(smooth_noise(rng, size, 7 * scale, 4 * scale, angle) - 0.15, 0.25)
        cracks = np.maximum(cracks, np.exp(-((relief / 0.2) ** 2)) * present)
    uneven = np.clip(0.85 + 0.35 * smooth_noise(rng, size, 2 * scale, 1.5 * scale, angle), 0.1, 1.5)
    return -rng.uniform(40, 85) * cracks * region * uneven


def paint_inclusion(rng: np.random.Generator, size: int) -> np.ndarray:
    """One to three ragged dark streaks along the rolling direction."""
    scale = size / 200
    angle = np.pi / 2 + rng.normal(0, 0.08)
    x, y = _centre(rng, size)
    depth = np.zeros((size, size))
    for _ in range(rng.integers(1, 4)):
        offset = rng.normal(0, 7 * scale), rng.normal(0, 14 * scale)
        along, across = turned_grid(size, (x + offset[0], y + offset[1]), angle)
        length = rng.uniform(0.07, 0.26) * size
        width = rng.uniform(2.2, 6.5) * scale
        wobble = 2 * scale * smooth_noise(rng, size, 14 * scale, 5 * scale, angle)
        ragged = 0.55 * smooth_noise(rng, size, 5 * scale, 1.5 * scale, angle)
        shape = 1 - np.abs(along / length) ** 2.5 - ((across + wobble) / width) ** 2
        depth = np.maximum(depth, soft_step(shape + ragged - 0.1, 0.35))
    mottled = 1 + 0.2 * smooth_noise(rng, size, 3 * scale, 1 * scale, angle)
    return -rng.uniform(28, 65) * depth * mottled


def paint_patches(rng: np.random.Generator, size: int) -> np.ndarray:
    """A dark blotch with a ragged outline, at times two that run into each other."""
    scale = size / 200
    x, y = _centre(rng, size)
    shape = np.full((size, size), -np.inf)
    for _ in range(rng.integers(1, 3)):
        angle = rng.uniform(0, np.pi)
        along, across = turned_grid(size, (x, y), angle)
        a, b = rng.uniform(0.06, 0.19) * size, rng.uniform(0.05, 0.13) * size
        shape = np.maximum(shape, 1 - np.sqrt((along / a) ** 2 + (across / b) ** 2))
        x, y = x + 0.8 * a * np.cos(angle), y + 0.8 * a * np.sin(angle)
    coarse = 0.42 * smooth_noise(rng, size, 9 * scale, 9 * scale)
    fine = 0.13 * smooth_noise(rng, size, 1.8 * scale, 1.8 * scale)
    mask = soft_step(shape + coarse * np.exp(-((shape / 0.8) ** 2)) + fine * (shape > -0.5), 0.3)
    mottled = 1 + 0.16 * smooth_noise(rng, size, 1.5 * scale, 1.5 * scale)
    return -rng.uniform(45, 100) * mask * mottled


def paint_pitted_surface(rng: np.random.Generator, size: int) -> np.ndarray:
    """Many small pits of uneven shape and depth, some run together, spread over a region."""
    region = _region(rng, size, (0.13, 0.34), (0.12, 0.34), rng.uniform(0, np.pi))
    change = np.zeros((size, size))
    count = int(region.sum() / (rng.uniform(40, 110) * (size / 200) ** 2))
    depth, radius = rng.uniform(30, 70), rng.uniform(0.9, 2.0) * size / 200
    for x, y in _places(rng, region, count):
        r, tilt = radius * rng.lognormal(0, 0.35), rng.uniform(0, np.pi)
        strength = -depth * rng.uniform(0.4, 1.1)
        _stamp(change, x, y, r * rng.uniform(1, 1.6), r, tilt, strength, rim=0.1)
    return change * (1 + 0.3 * smooth_noise(rng, size, 1.0, 1.0))


def paint_rolled_in_scale(rng: np.random.Generator, size: int) -> np.ndarray:
    """Clusters of dark flakes pressed in along one direction, on a dulled ground."""
    scale = size / 200
    angle = rng.normal(0, 0.15)
    region = _region(rng, size, (0.11, 0.26), (0.1, 0.24), angle)
    change = -rng.uniform(2, 7) * region
    depth = rng.uniform(40, 85)
    count = int(region.sum() / (rng.uniform(75, 130) * scale**2))
    for x, y in _places(rng, region, count):
        long, short = rng.uniform(3, 7.5) * scale, rng.uniform(1.2, 2.6) * scale
        tilt = angle + rng.normal(0.25, 0.3)
        _stamp(change, x, y, long, short, tilt, -depth * rng.uniform(0.4, 1.1), rim=0.0)
    return change * (1 + 0.25 * smooth_noise(rng, size, 2 * scale, scale, angle))


def paint_scratches(rng: np.random.Generator, size: int) -> np.ndarray:
    """One bright line, or a bundle of parallel ones, slightly bent and uneven."""
    scale = size / 200
    angle = rng.normal(0, 0.12) + (np.pi / 2) * (rng.random() < 0.65)
    if rng.random() < 0.2:
        angle = rng.uniform(0, np.pi)
    along, across = turned_grid(size, _centre(rng, size), angle)
    length = rng.uniform(0.14, 0.48) * size
    bend = rng.normal(0, 3) * scale * (along / length) ** 2
    ends = soft_step(1 - np.abs(along / length), 0.06)
    uneven = np.clip(1 + 0.35 * smooth_noise(rng, size, 12 * scale, 1.2 * scale, angle), 0.2, 1.6)
    line = np.zeros((size, size))
    offset = 0.0
    for _ in range(rng.choice([1, 1, 2, 4])):
        width = rng.uniform(1.4, 3.6) * scale
        track = np.exp(-(((across + bend - offset) / width) ** 2))
        line = np.maximum(line, rng.uniform(0.6, 1) * track)
        offset += rng.uniform(1.8, 3.2) * width
    return rng.uniform(45, 105) * line * ends * uneven


PAINTERS: dict[str, Painter] = {
    'crazing': paint_crazing,
    'inclusion': paint_inclusion,
    'patches': paint_patches,
    'pitted_surface': paint_pitted_surface,
    'rolled-in_scale': paint_rolled_in_scale,
    'scratches': paint_scratches,
}


def _centre(rng: np.random.Generator, size: int) -> tuple[float, float]:
    x, y = rng.uniform(0.08, 0.92, 2) * size
    return x, y


def _region(
    rng: np.random.Generator,
    size: int,
    half_length: tuple[float, float],
    half_width: tuple[float, float],
    angle: float,
) -> np.ndarray:
    """A soft, uneven area between ellipse and rectangle; 1 inside, 0 outside."""
    along, across = turned_grid(size, _centre(rng, size), angle)
    a, b = rng.uniform(*half_length) * size, rng.uniform(*half_width) * size
    wave = 0.12 * smooth_noise(rng, size, 0.06 * size, 0.06 * size)
    distance = (np.abs(along / a) ** 3 + np.abs(across / b) ** 3) ** (1 / 3)
    return soft_step(1 - distance + wave * (distance < 1.5), 0.1)


def _places(rng: np.random.Generator, region: np.ndarray, count: int) -> np.ndarray:
    """Pixels drawn at random from a region, shape (count, 2) as x, y."""
    weights = region.ravel() / region.sum()
    drawn = rng.choice(region.size, size=max(count, 5), p=weights)
    return np.stack([drawn % region.shape[1], drawn // region.shape[1]], axis=1)


def _stamp(
    change: np.ndarray,
    x: float,
    y: float,
    long: float,
    short: float,
    angle: float,
    depth: float,
    rim: float,
) -> None:
    """Presses one elliptic mark into a change map, the deeper of old and new counting."""
    reach = int(3 * long) + 2
    top, left = max(int(y) - reach, 0), max(int(x) - reach, 0)
    window = change[top : int(y) + reach + 1, left : int(x) + reach + 1]
    rows, columns = np.mgrid[: window.shape[0], : window.shape[1]].astype(float)
    dx, dy = columns + left - x, rows + top - y
    u = (dx * np.cos(angle) + dy * np.sin(angle)) / long
    v = (-dx * np.sin(angle) + dy * np.cos(angle)) / short
    distance = u**2 + v**2
    mark = depth * np.exp(-(distance**1.5))
    if rim:
        mark -= rim * depth * np.exp(-((np.sqrt(distance) - 1.7) ** 2) / 0.15)
    stronger = np.abs(mark) > np.abs(window)
    window[stronger] = mark[stronger]
