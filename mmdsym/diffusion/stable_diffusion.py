"""Paints defects with a Stable-Diffusion inpainting pipeline and one prompt per class."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from mmdsym.class_prompts import Prompts, require_prompts
from mmdsym.errors import UserError
from mmdsym.registry import SYNTHESISERS

from .blending import blend
from .inpainting_pipeline import (
    check_pipeline,
    load_pipeline,
    pipeline_digest,
    require_transformers,
)
from .labelled_images import is_grey
from .reference import with_reference
from .regions import cut_window, paste_window, place_window, region_masks
from .synthesiser import CLEAN_SURFACE, PaintingTask

PROMPT_TEMPLATE = 'a close-up photo of a surface with {}'
_DTYPES = {
    'float32': torch.float32,
    'float16': torch.float16,
    'bfloat16': torch.bfloat16,
}


@SYNTHESISERS.register_module()
class StableDiffusionSynthesiser:
    """Paints regions with a text-to-image model that was trained elsewhere (arXiv 2112.10752).

    Each task has noise of its own, and the network always computes batches of one shape, filled
    up where tasks are few: the same task gives the same pixels whatever stands beside it. Images
    whose channels are equal stay grey. The weights are loaded when something is painted for the
    first time.

    Args:
        model: Folder of an inpainting pipeline as diffusers saves it, with weights as
            ``.safetensors``; or its hub id.
        classes: Class names, in the order of the labels.
        prompts: Class name to prompt, for every class; by default made from the class names with
            :data:`PROMPT_TEMPLATE`.
        revision: Commit of a hub id; a folder needs none.
        negative_prompt: What the pictures are not to show.
        clean_prompt: Prompt of regions without a defect.
        num_steps: Steps of DPM-Solver++ from pure noise.
        guidance: Weight of the prompt against none; 1 ignores ``negative_prompt`` and is half the
            work.
        resolution: Side of the window in pixels as the network sees it, a multiple of 8.
        context: Side of the window in units of the box's longer side.
        min_side: Smallest side of the window in pixels of the image.
        batch_size: Regions that the network computes together; part of what determines the pixels.
        dtype: ``'float32'``, or on a GPU ``'float16'`` or ``'bfloat16'``.
        device: ``'cuda'``, ``'cpu'``, or by default what there is.

    Raises:
        UserError: A setting is out of range, a class has no prompt, transformers is not
            installed, or a folder is missing or incomplete. A hub is asked for weights when
            something is painted.
    """

    def __init__(
        self,
        model: str,
        classes: Sequence[str],
        prompts: Prompts | None = None,
        revision: str | None = None,
        negative_prompt: str = '',
        clean_prompt: str = 'a close-up photo of a clean surface without any defect',
        num_steps: int = 20,
        guidance: float = 7.5,
        resolution: int = 512,
        context: float = 2.0,
        min_side: int = 64,
        batch_size: int = 4,
        dtype: str = 'float32',
        device: str | None = None,
    ) -> None:
        self.prompts = prompts_of_classes(classes, prompts)
        self.clean_prompt = clean_prompt
        self.negative_prompt = negative_prompt
        for name, value in (('num_steps', num_steps), ('batch_size', batch_size)):
            if value < 1:
                raise UserError(f'{name} of the synthesiser is {value}: give at least 1.')
        if resolution < 8 or resolution % 8:
            raise UserError(f'resolution is {resolution}: give a multiple of 8, such as 512.')
        if dtype not in _DTYPES:
            raise UserError(f"dtype is '{dtype}': choose one of {', '.join(_DTYPES)}.")
        require_transformers()
        check_pipeline(model, revision)
        self.model = model
        self.revision = revision
        self.num_steps = num_steps
        self.guidance = guidance
        self.resolution = resolution
        self.context = context
        self.min_side = min_side
        self.batch_size = batch_size
        self.dtype = dtype
        self.device = device or ('cuda' if torch.cuda.is_available() else 'cpu')

    @cached_property
    def fingerprint(self) -> str:
        """Of the weights and of every setting that changes pixels."""
        settings = dict(
            weights=pipeline_digest(self.model, self.revision),
            prompts=self.prompts,
            clean_prompt=self.clean_prompt,
            negative_prompt=self.negative_prompt,
            num_steps=self.num_steps,
            guidance=self.guidance,
            resolution=self.resolution,
            context=self.context,
            min_side=self.min_side,
            batch_size=self.batch_size,
            dtype=self.dtype,
        )
        content = json.dumps(['stable-diffusion 1', settings], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    @cached_property
    def _pipeline(self):
        return load_pipeline(self.model, self.revision, _DTYPES[self.dtype], self.device)

    def paint(self, tasks: Sequence[PaintingTask]) -> list[np.ndarray]:
        """Returns each task's image with its region repainted.

        Raises:
            UserError: The weights cannot be loaded.
        """
        by_steps = defaultdict(list)
        for index, task in enumerate(tasks):
            by_steps[self._steps_of(task)].append(index)
        results: list[np.ndarray | None] = [None] * len(tasks)
        for steps, indices in sorted(by_steps.items()):
            for begin in range(0, len(indices), self.batch_size):
                chunk = indices[begin : begin + self.batch_size]
                painted = self._paint_batch([tasks[index] for index in chunk], steps)
                for index, pixels in zip(chunk, painted, strict=True):
                    results[index] = _finish(tasks[index], pixels, self._window(tasks[index]))
        return results

    def _steps_of(self, task: PaintingTask) -> int:
        strength = 1.0 if task.reference is None else task.strength
        return min(self.num_steps, max(1, round(self.num_steps * strength)))

    def _window(self, task: PaintingTask):
        size = task.image.shape[1], task.image.shape[0]
        return place_window(task.box, size, self.context, self.min_side)

    def _paint_batch(self, tasks: list[PaintingTask], steps: int) -> np.ndarray:
        """Returns windows (N, S, S, 3), uint8."""
        filled = tasks + tasks[:1] * (self.batch_size - len(tasks))
        regions = [self._region(task) for task in filled]
        images, masks = (np.stack(parts) for parts in zip(*regions, strict=True))
        # The pipeline rounds down, and the quotient may lie just below the number meant.
        strength = 1.0 if steps == self.num_steps else (steps + 0.5) / self.num_steps
        painted = self._pipeline(
            prompt=[self._prompt(task.label) for task in filled],
            negative_prompt=[self.negative_prompt] * len(filled),
            image=images.astype(np.float32) / 255,
            mask_image=(masks >= 128).astype(np.float32),
            height=self.resolution,
            width=self.resolution,
            strength=strength,
            num_inference_steps=self.num_steps,
            guidance_scale=self.guidance,
            # Noise drawn on the CPU is the same for every device.
            generator=[torch.Generator('cpu').manual_seed(task.seed) for task in filled],
            output_type='np',
        ).images
        pixels = np.nan_to_num(np.asarray(painted, dtype=np.float32))[: len(tasks)]
        return (pixels * 255).round().clip(0, 255).astype(np.uint8)

    def _prompt(self, label: int) -> str:
        return self.clean_prompt if label == CLEAN_SURFACE else self.prompts[label]

    def _region(self, task: PaintingTask) -> tuple[np.ndarray, np.ndarray]:
        """Returns the window (S, S, 3) and what may change in it (S, S, 1), uint8."""
        size = task.image.shape[1], task.image.shape[0]
        window = self._window(task)
        start = task.image if task.reference is None else with_reference(task)
        mask, _ = region_masks(task.box, size, window, self.resolution)
        return cut_window(start, window, self.resolution), mask


def _finish(task: PaintingTask, pixels: np.ndarray, window) -> np.ndarray:
    if is_grey(task.image):
        grey = pixels.mean(axis=2, keepdims=True).round().astype(np.uint8)
        pixels = np.repeat(grey, 3, axis=2)
    return blend(task.image, paste_window(task.image, pixels, window), task.box)


def prompts_of_classes(classes: Sequence[str], prompts: Prompts | None) -> list[str]:
    """Returns the prompt of each class, in the order of the labels.

    Args:
        classes: Class names.
        prompts: Class name to prompt, or pairs of both, for all of them; ``None`` makes them from
            the names.

    Raises:
        UserError: There is no class, a class has no prompt, or a prompt has no class.
    """
    if not classes:
        raise UserError('the synthesiser has no classes: name those of the data in classes.')
    if prompts is None:
        words = (name.replace('_', ' ').replace('-', ' ') for name in classes)
        return [PROMPT_TEMPLATE.format(word) for word in words]
    prompts = require_prompts(prompts, classes)
    return [prompts[name] for name in classes]
