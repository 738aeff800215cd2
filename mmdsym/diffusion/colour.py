"""Whether images show colour, and whether a diffusion model can paint it."""

from __future__ import annotations

import numpy as np

from mmdsym.errors import UserError

from .labelled_images import LabelledImages

COLOUR_SPREAD = 16
"""Grey levels between a pixel's channels from which it has a colour; less is a tint or noise of a
grey picture, which blending takes over from the surface around."""


def shows_colour(pixels: np.ndarray) -> bool:
    """Says whether an image, (H, W, 3), uint8, has a pixel that is coloured."""
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    return bool((spread >= COLOUR_SPREAD).any())


def refuse_colour(path: str, pixels: np.ndarray) -> None:
    """Refuses an image in colour where a model sees one channel.

    Args:
        path: The image, to be named.
        pixels: (H, W, 3), uint8.

    Raises:
        UserError: It shows colour.
    """
    if shows_colour(pixels):
        raise UserError(
            f'the diffusion model is grey (channels=1), but {path} is in colour, which would be '
            "lost: train one with 'diffusion/defect_inpaint_colour.py' as config of the part "
            'diffusion, or with channels=3 in a config of your own.'
        )


def check_channels(channels: int, images: LabelledImages) -> None:
    """Makes sure that a model paints what the images show.

    Args:
        channels: 1 for a model of grey images, 3 for one of colour.
        images: Those that it is to paint into.

    Raises:
        UserError: A grey model meets an image in colour, or one for colour none at all.
    """
    for index, image in enumerate(images):
        pixels = images.pixels(index)
        if channels == 1:
            refuse_colour(image.path, pixels)
        elif shows_colour(pixels):
            return
    if channels != 1:
        raise UserError(
            f'the diffusion model paints in colour (channels=3), but all {len(images)} images are '
            "grey: train a grey one with 'diffusion/defect_inpaint_neu_40pct.py' as config of the "
            'part diffusion.'
        )
