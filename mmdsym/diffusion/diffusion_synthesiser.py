"""Paints defects with the diffusion model that was trained on the labelled images."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from mmdsym.errors import UserError
from mmdsym.registry import SYNTHESISERS

from .blending import blend
from .colour import check_channels, refuse_colour
from .denoiser import PatchDenoiser
from .labelled_images import LabelledImages, is_grey
from .reference import with_detail, with_reference
from .region_batch import to_batch, to_pixels
from .region_transform import to_channels, to_tensor
from .regions import cut_window, paste_window, place_window, region_masks
from .sampling import noise_of, sample_regions
from .synthesiser import CLEAN_SURFACE, PaintingTask
from .weights import diffusion_digest, load_diffusion

FORMAT = 2
"""Raised whenever the same settings paint something else."""


@SYNTHESISERS.register_module()
class DiffusionSynthesiser:
    """Paints regions of many images at once.

    The same task gives the same pixels whatever stands beside it: the network always computes
    batches of one shape, filled up where tasks are few, and each task has noise of its own.

    Args:
        weights: Folder of :func:`mmdsym.diffusion.weights.save_diffusion`.
        classes: The class names of the data; must be those of the model.
        num_steps: Steps of DPM-Solver++ from pure noise.
        guidance: Weight of the class against any class; 1 is half the work.
        context: Side of the window in units of the box's longer side; by default the middle of
            what the model was trained with.
        detail: Share of the reference's fine structure, finer than a cell of the network, that the
            result keeps in place of the network's own, in [0, 1]: a small network paints shapes
            and brightness, but no grain. Without a reference there is none.
        batch_size: Regions that the network computes together; part of what determines the pixels.
        device: ``'cuda'``, ``'cpu'``, or by default what there is.

    Raises:
        UserError: The weights are missing or damaged, or know other classes.
    """

    def __init__(
        self,
        weights: str,
        classes: Sequence[str] | None = None,
        num_steps: int = 20,
        guidance: float = 1.0,
        context: float | None = None,
        detail: float = 1.0,
        batch_size: int = 8,
        device: str | None = None,
    ) -> None:
        unet, self.scheduler, self.about = load_diffusion(weights)
        if classes is not None and tuple(classes) != self.about.classes:
            raise UserError(
                f'the diffusion model in {weights} paints {self.about.classes}, but the data have '
                f'{tuple(classes)}: train it on these data.'
            )
        self.device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
        self.denoiser = PatchDenoiser.around(unet, len(self.about.classes), self.about.patch_size)
        self.denoiser.to(self.device, memory_format=torch.channels_last).eval()
        self.num_steps = num_steps
        self.guidance = guidance
        self.context = sum(self.about.contexts) / 2 if context is None else context
        self.detail = detail
        self.batch_size = batch_size
        self._digest = diffusion_digest(Path(weights))

    @property
    def fingerprint(self) -> str:
        """Of the weights and of every setting that changes pixels."""
        settings = (self._digest, self.num_steps, self.guidance, self.context, self.batch_size)
        settings += (FORMAT, self.detail)
        return hashlib.sha256(repr(settings).encode()).hexdigest()

    def check_images(self, images: LabelledImages) -> None:
        """Makes sure that the model paints in colour if, and only if, the images show it.

        Raises:
            UserError: It does not.
        """
        check_channels(self.about.channels, images)

    def paint(self, tasks: Sequence[PaintingTask]) -> list[np.ndarray]:
        """Returns each task's image with its region repainted; see :class:`Synthesiser`.

        Raises:
            UserError: The model is grey, and an image is in colour.
        """
        if self.about.channels == 1:
            for task in tasks:
                refuse_colour('an image to be painted into', task.image)
        results: list[np.ndarray | None] = [None] * len(tasks)
        # Tasks that start from their reference take fewer steps: each length is a batch of its own.
        by_length: dict[int, list[int]] = defaultdict(list)
        for index, task in enumerate(tasks):
            by_length[self._steps_of(task)].append(index)
        for length, indices in sorted(by_length.items()):
            for begin in range(0, len(indices), self.batch_size):
                chunk = indices[begin : begin + self.batch_size]
                painted = self._paint_batch([tasks[index] for index in chunk], length)
                for index, image in zip(chunk, painted, strict=True):
                    results[index] = image
        return results

    def _steps_of(self, task: PaintingTask) -> int:
        strength = 1.0 if task.reference is None else task.strength
        return max(1, round(self.num_steps * strength))

    def _paint_batch(self, tasks: list[PaintingTask], length: int) -> list[np.ndarray]:
        regions = [self._region(task) for task in tasks]
        filled = regions + regions[:1] * (self.batch_size - len(regions))
        image, region, box, classes, noise = (
            torch.stack(parts).to(self.device) for parts in zip(*filled, strict=True)
        )
        batch = to_batch(image, region, box)
        painted = sample_regions(
            self.denoiser,
            self.scheduler,
            batch,
            classes,
            noise,
            self.num_steps,
            self.guidance,
            start=length / self.num_steps,
        )
        pixels = to_pixels(painted, batch.brightness)
        return [
            self._finish(task, pixel)
            for task, pixel in zip(tasks, pixels[: len(tasks)], strict=True)
        ]

    def _window(self, task: PaintingTask):
        size = task.image.shape[1], task.image.shape[0]
        return place_window(task.box, size, self.context, self.about.min_side), size

    def _region(self, task: PaintingTask) -> tuple[Tensor, ...]:
        window, size = self._window(task)
        side, channels = self.about.crop_size, self.about.channels
        start = task.image if task.reference is None else with_reference(task)
        pixels = cut_window(to_channels(start, channels), window, side)
        region, box = region_masks(task.box, size, window, side)
        if task.label == CLEAN_SURFACE:
            box = np.zeros_like(box)
        label = self.denoiser.class_index(torch.tensor(task.label))
        noise = noise_of(task.seed, (channels, side, side))
        return to_tensor(pixels), to_tensor(region), to_tensor(box), label, noise

    def _finish(self, task: PaintingTask, pixels: Tensor) -> np.ndarray:
        window, _ = self._window(task)
        painted = pixels.permute(1, 2, 0).numpy()
        if painted.shape[2] == 1:
            painted = np.repeat(painted, 3, axis=2)
        whole = paste_window(task.image, painted, window)
        if task.reference is not None and self.detail > 0:
            start = with_reference(task)
            cell = self.about.patch_size * window.side / self.about.crop_size
            fine = with_detail(whole, start, cell)
            whole = cv2.addWeighted(fine, self.detail, whole, 1 - self.detail, 0)
        blended = blend(task.image, whole, task.box)
        if self.about.channels == 3 and is_grey(task.image):
            # Among images in colour, too, one may be grey, and is to stay so.
            blended = np.repeat(to_channels(blended, 1), 3, axis=2)
        return blended
