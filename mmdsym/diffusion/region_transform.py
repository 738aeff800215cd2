"""Training examples of the diffusion model: a window around a defect, or of clean surface."""

from __future__ import annotations

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mmdsym.errors import UserError
from mmdsym.free_space import find_free_box
from mmdsym.registry import TRANSFORMS

from .colour import refuse_colour
from .regions import Corners, cut_window, place_window, region_masks
from .synthesiser import CLEAN_SURFACE

# Of an image without a defect: sides of clean pieces, as fractions of its own.
_PARTS_TRIED = (3, 6, 12)


@TRANSFORMS.register_module()
class CropDefectRegion(BaseTransform):
    """Turns an image with boxes into one region to paint, with its mask and its class.

    Needs ``img`` and the ground truth of ``LoadAnnotations``. Regions of clean surface have the
    size of a labelled box of the image and touch none; so the model also learns what lies around
    and beneath defects. Boxes that are marked as crowds are neither painted nor taken for clean.

    Args:
        crop_size: Side of the result in pixels.
        channels: 1 for grey images, 3 for colour.
        contexts: Least and largest side of the window in units of the box's longer side.
        min_side: See :func:`mmdsym.diffusion.regions.place_window`.
        clean_share: Share of regions without a defect, where the image has room, in [0, 1].
        fixed: Whether an image always gives the same region, for validation.

    Raises:
        UserError: An image is in colour, but ``channels`` is 1; or crowds fill an image for
            validation.
    """

    def __init__(
        self,
        crop_size: int,
        channels: int = 1,
        contexts: tuple[float, float] = (1.2, 2.5),
        min_side: int = 64,
        clean_share: float = 0.15,
        fixed: bool = False,
    ) -> None:
        self.crop_size = crop_size
        self.channels = channels
        self.contexts = contexts
        self.min_side = min_side
        self.clean_share = clean_share
        self.fixed = fixed

    def transform(self, results: dict) -> dict | None:
        """Returns ``image`` (channels, S, S), ``region`` and ``box`` (1, S, S), uint8, ``label``.

        The masks are 255 where the region may change, and where its defect lies. ``None`` lets the
        data set draw another image in place of one that crowds fill.
        """
        # Seeded through NumPy's global state, which MMEngine seeds in each worker.
        seed = results['sample_idx'] if self.fixed else np.random.randint(2**31)
        generator = np.random.default_rng(seed)
        image = results['img']
        if self.channels == 1:
            refuse_colour(results['img_path'], image)
        size = image.shape[1], image.shape[0]
        chosen = self._choose(generator, results, size)
        if chosen is None:
            if self.fixed:
                raise UserError(
                    f'{results["img_path"]} is filled by boxes marked as crowds, so that '
                    'nothing of it can be painted: leave the image out of the labelled data.'
                )
            return None
        box, label = chosen
        context = generator.uniform(*self.contexts)
        shift = (0.5, 0.5) if self.fixed else tuple(generator.uniform(size=2))
        window = place_window(box, size, context, self.min_side, shift)
        pixels = cut_window(to_channels(image[..., ::-1], self.channels), window, self.crop_size)
        region, inside = region_masks(box, size, window, self.crop_size)
        if label == CLEAN_SURFACE:
            inside = np.zeros_like(inside)
        return dict(
            image=to_tensor(pixels), region=to_tensor(region), box=to_tensor(inside), label=label
        )

    def _choose(
        self, generator: np.random.Generator, results: dict, size: tuple[int, int]
    ) -> tuple[Corners, int] | None:
        boxes = usable_boxes(np.asarray(results['gt_bboxes'].tensor), size)
        usable = (boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1)
        defects = np.flatnonzero(usable & ~results['gt_ignore_flags'])
        if not len(defects) or generator.uniform() < self.clean_share:
            clean = _find_clean(generator, size, boxes[usable], boxes[defects])
            if clean is not None:
                return tuple(clean), CLEAN_SURFACE
        if not len(defects):
            return None
        chosen = generator.choice(defects)
        return tuple(boxes[chosen]), int(results['gt_bboxes_labels'][chosen])


def _find_clean(
    generator: np.random.Generator, size: tuple[int, int], taken: np.ndarray, defects: np.ndarray
) -> np.ndarray | None:
    """Returns a piece of clean surface as large as a defect or, without one, as there is room."""
    if len(defects):
        wanted = defects[generator.integers(len(defects))]
        return find_free_box(generator, size, tuple(wanted[2:] - wanted[:2]), taken)
    for part in _PARTS_TRIED:
        clean = find_free_box(generator, size, tuple(np.divide(size, part)), taken)
        if clean is not None:
            return clean
    return None


def usable_boxes(boxes: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Brings boxes (N, 4) inside an image of (width, height)."""
    return boxes.reshape(-1, 4).clip(0, [*image_size, *image_size]).astype(float)


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Returns an RGB image (H, W, 3) with one channel, its mean, or as it is.

    Raises:
        ValueError: Neither 1 nor 3 channels are asked for.
    """
    if channels == 3:
        return image
    if channels != 1:
        raise ValueError(f'images have 1 or 3 channels, not {channels}')
    return image.mean(axis=2, keepdims=True).round().astype(np.uint8)


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """(H, W, C) -> (C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
