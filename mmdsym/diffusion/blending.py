"""Painted pixels go into an image without a visible border."""

from __future__ import annotations

import numpy as np

from mmdsym.diffusion.synthesiser import repaint_region

# Keeps the gradient at zero where the seam lies on one side only and cannot tell it; in units of
# the seam's total weight, small beside the variance of a coordinate around a whole box (1/3).
_SLOPE_PENALTY = 1e-2


def blend(
    image: np.ndarray,
    painted: np.ndarray,
    box: tuple[float, float, float, float],
    margin: float = 0.1,
    match_brightness: bool = True,
) -> np.ndarray:
    """Puts the painted region of a box into an image.

    Inside the box the painted pixels count alone; over the seam of ``repaint_region`` they fade
    into the image, except towards the image's border, behind which there is nothing to fade into.
    Before that, a plane is added to them for which painting and image agree best on the seam: it
    takes away a step in brightness and leaves contrast and texture as they are.

    Args:
        image: (H, W, 3), uint8.
        painted: (H, W, 3), uint8; looked at within ``repaint_region(box, ...)`` only.
        box: x1, y1, x2, y2 in pixels, inside the image.
        margin: Width of the seam, as ``repaint_region`` takes it.
        match_brightness: Whether the plane is added.

    Returns:
        A new array; outside of ``repaint_region(box, ...)`` it equals ``image``.

    Raises:
        ValueError: ``image`` and ``painted`` differ in shape.
    """
    if image.shape != painted.shape:
        raise ValueError(f'cannot blend pixels of {painted.shape} into an image of {image.shape}')
    height, width = image.shape[:2]
    left, top, right, bottom = repaint_region(box, (width, height), margin)
    across = _fade(left, right, box[0], box[2], width)
    down = _fade(top, bottom, box[1], box[3], height)
    weight = (down[:, None] * across[None, :])[..., None]
    old = image[top:bottom, left:right].astype(float)
    new = painted[top:bottom, left:right].astype(float)
    if match_brightness:
        new = new + _fit_plane(old - new, 1 - weight[..., 0])
    result = image.copy()
    mixed = weight * new + (1 - weight) * old
    result[top:bottom, left:right] = mixed.round().clip(0, 255).astype(image.dtype)
    return result


def _fade(begin: int, end: int, low: float, high: float, length: int) -> np.ndarray:
    """Weights of the pixels begin..end along one axis: 1 in low..high, smoothly 0 at both ends."""
    centres = np.arange(begin, end) + 0.5
    rise = np.ones(end - begin)
    fall = np.ones(end - begin)
    if begin > 0:
        rise = ((centres - begin) / (low - begin)).clip(0, 1)
    if end < length:
        fall = ((end - centres) / (end - high)).clip(0, 1)
    ramp = rise * fall
    return ramp * ramp * (3 - 2 * ramp)


def _fit_plane(difference: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Returns the plane of each channel nearest to a difference, by weighted least squares.

    Args:
        difference: (h, w, C).
        weight: (h, w), not negative; where all are 0 the plane is 0.
    """
    height, width, channels = difference.shape
    total = weight.sum()
    if total <= 0:
        return np.zeros_like(difference)
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing='ij')
    terms = np.stack([np.ones_like(x), x, y], axis=-1).reshape(-1, 3)
    weighted = terms * weight.reshape(-1, 1)
    gram = weighted.T @ terms + np.diag([0.0, 1.0, 1.0]) * _SLOPE_PENALTY * total
    inverse = np.linalg.inv(gram)
    # Summed channel by channel in the same order: equal channels must stay equal to the last bit.
    flat = difference.reshape(-1, channels)
    planes = []
    for channel in range(channels):
        right_side = (weighted * flat[:, channel : channel + 1]).sum(axis=0)
        planes.append((terms * (inverse * right_side).sum(axis=1)).sum(axis=1))
    return np.stack(planes, axis=-1).reshape(difference.shape)
