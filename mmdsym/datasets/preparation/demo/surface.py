"""Defect-free rolled steel: brushed grain, illumination and stains."""

from __future__ import annotations

import numpy as np

from mmdsym.datasets.preparation.demo.noise import smooth_noise, turned_grid


def make_surface(rng: np.random.Generator, size: int) -> np.ndarray:
    """A surface without defect.

    Grain, brightness, rolling direction and lighting differ from one to the next, whatever defect
    is put on it later, so the background tells nothing about the class.

    Returns:
        Grey values of shape (size, size), floats in about 30..220.
    """
    rolling = np.pi / 2 + rng.normal(0, 0.04) + (np.pi / 2) * (rng.random() < 0.15)
    scale = size / 200
    grey = np.full((size, size), rng.uniform(75, 185))
    grey += _illumination(rng, size)
    # Streaks along the rolling direction, some fine, some as broad as a roller's mark.
    grey += rng.uniform(1, 5) * smooth_noise(rng, size, 45 * scale, 0.7, rolling)
    grey += rng.uniform(1, 6) * smooth_noise(rng, size, 150 * scale, 9 * scale, rolling)
    grey += rng.uniform(2, 7) * smooth_noise(rng, size, 40 * scale, 25 * scale, rolling)
    # The metal's own grain, from polished to rough.
    rough = rng.choice([2.0, 5.0, 11.0])
    grey += rng.uniform(0.6, 1.4) * rough * smooth_noise(rng, size, 1.6, 0.8, rolling + np.pi / 2)
    grey += rng.uniform(1, 2.5) * rng.standard_normal((size, size))
    return np.clip(grey, 25, 225)


def _illumination(rng: np.random.Generator, size: int) -> np.ndarray:
    """A slope of light over the surface, sometimes with a glare band."""
    along, across = turned_grid(size, (size / 2, size / 2), rng.uniform(0, 2 * np.pi))
    light = rng.uniform(0, 22) * along / (size / 2)
    if rng.random() < 0.3:
        width = rng.uniform(0.15, 0.4) * size
        place = rng.uniform(-0.4, 0.4) * size
        light += rng.uniform(8, 25) * np.exp(-(((across - place) / width) ** 2))
    return light
