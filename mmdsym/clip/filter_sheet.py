"""A sheet of boxes that the filter kept and dropped, with the scores of both judges."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmdsym.crops import crop_windows, square_windows
from mmdsym.visualization import Box, compose_sheet, draw_panel

from .pseudo_label_filter import Example

_SIDE = 160
_CONTEXT = 1.6
_COLOURS = {'kept': (60, 220, 90), 'dropped': (255, 99, 71)}


def draw_filter_sheet(
    kept: Sequence[Example],
    dropped: Sequence[Example],
    classes: Sequence[str],
    read: Callable[[str], Tensor],
) -> np.ndarray | None:
    """Draws the boxes with their surroundings.

    Args:
        kept: Boxes that became pseudo-labels.
        dropped: Boxes that did not.
        classes: Class names.
        read: Returns an image as (3, H, W), RGB, or (1, H, W), in 0..255, given its path.

    Returns:
        RGB, uint8, (H, W, 3); ``None`` without any box.
    """
    entries = [
        [_panel(example, fate, classes, read)]
        for fate, examples in (('kept', kept), ('dropped', dropped))
        for example in examples
        if np.isfinite(example.box).all()
    ]
    if not entries:
        return None
    title = 'Pseudo-boxes kept (green) and dropped (red): teacher / CLIP / fused score'
    return np.asarray(compose_sheet(entries, title, columns=6))


def _panel(
    example: Example, fate: str, classes: Sequence[str], read: Callable[[str], Tensor]
) -> Image.Image:
    box = torch.tensor([example.box])
    window = square_windows(box, _CONTEXT, min_side=4.0)
    crop = crop_windows(read(example.path).float(), window, _SIDE)[0]
    pixels = crop.expand(3, -1, -1).clamp(0, 255).byte().permute(1, 2, 0)
    picture = Image.fromarray(pixels.numpy())
    scale = _SIDE / float(window[0, 2] - window[0, 0])
    corners = ((box - window[0, :2].repeat(2)) * scale)[0].tolist()
    clip = '-' if np.isnan(example.clip) else f'{example.clip:.2f}'
    text = f'{example.teacher:.2f} / {clip} / {example.fused:.2f}'
    frame = Box(tuple(corners), text, _COLOURS[fate])
    return draw_panel(picture, [frame], f'{fate}: {classes[example.label]}')
