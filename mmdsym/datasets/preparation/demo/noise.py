"""Random fields that surfaces and defects are made of."""

from __future__ import annotations

import math

import numpy as np


def smooth_noise(
    rng: np.random.Generator, size: int, along: float, across: float, angle: float = 0.0
) -> np.ndarray:
    """Gaussian noise, blurred more in one direction than in the other.

    Args:
        rng: Source of randomness.
        size: Side of the square field in pixels.
        along: Standard deviation of the blur in the direction of `angle`, in pixels.
        across: The same at right angles to it.
        angle: Direction in radians; 0 is horizontal.

    Returns:
        Field of shape (size, size) with mean 0 and standard deviation 1.
    """
    # Filtering by FFT wraps around; a margin keeps opposite borders from matching. Sides that are
    # multiples of 48 transform fast.
    side = 48 * math.ceil((size + min(size, 2 * max(along, across))) / 48)
    fy, fx = np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing='ij')
    u = fx * np.cos(angle) + fy * np.sin(angle)
    v = -fx * np.sin(angle) + fy * np.cos(angle)
    blur = np.exp(-2 * np.pi**2 * ((along * u) ** 2 + (across * v) ** 2))
    white = np.fft.rfft2(rng.standard_normal((side, side)))
    field = np.fft.irfft2(white * blur, s=(side, side))
    field = field[:size, :size]
    return (field - field.mean()) / (field.std() + 1e-9)


def turned_grid(
    size: int, centre: tuple[float, float], angle: float
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of all pixels along and across a direction.

    Args:
        size: Side of the square image in pixels.
        centre: (x, y) of the origin in pixels.
        angle: Direction in radians; 0 is horizontal.

    Returns:
        Distance along and across the direction, each of shape (size, size), in pixels.
    """
    y, x = np.mgrid[:size, :size].astype(float)
    dx, dy = x - centre[0], y - centre[1]
    along = dx * np.cos(angle) + dy * np.sin(angle)
    return along, -dx * np.sin(angle) + dy * np.cos(angle)


def soft_step(field: np.ndarray, softness: float) -> np.ndarray:
    """0 where the field is clearly negative, 1 where clearly positive, smooth between."""
    return 0.5 * (1 + np.tanh(field / softness))
