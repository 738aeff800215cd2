"""Shows during the training of the diffusion model what it paints."""

from __future__ import annotations

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from PIL import Image
from torch import Tensor

from mmdsym.registry import HOOKS
from mmdsym.visualization import compose_sheet, draw_panel

from .inpainting_model import DefectInpaintingDiffusion
from .region_batch import to_batch, to_pixels
from .sampling import noise_of, sample_regions
from .synthesiser import CLEAN_SURFACE


@HOOKS.register_module()
class SampleSheetHook(Hook):
    """Draws, with each validation, regions of held-out images: given, painted and real.

    The same regions and noise each time, so that sheets can be compared. While MMEngine's EMAHook
    is on, the averaged weights paint.

    Args:
        per_class: Regions of each class, and of clean surface.
        num_steps: Steps of the sampler.
        guidance: Weight of the class against any class.
    """

    # EMAHook puts the averaged weights in for the validation, and takes them out after it.
    priority = 'ABOVE_NORMAL'

    def __init__(self, per_class: int = 2, num_steps: int = 20, guidance: float = 1.5) -> None:
        self.per_class = per_class
        self.num_steps = num_steps
        self.guidance = guidance

    @master_only
    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Paints and hands the sheet to the visualizer."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        dataset = runner.val_dataloader.dataset
        regions = self._choose(dataset)
        painted = self._paint(model, regions)
        names = (*dataset.metainfo['classes'], 'clean surface')
        entries = [
            _panels(region, result, names[region['label']])
            for region, result in zip(regions, painted, strict=True)
        ]
        title = f'Iteration {runner.iter}: surroundings, painted, real'
        sheet = compose_sheet(entries, title, columns=self.per_class)
        runner.visualizer.add_image('diffusion_samples', np.asarray(sheet), step=runner.iter)

    def _choose(self, dataset: torch.utils.data.Dataset) -> list[dict]:
        """The first regions of each class."""
        wanted = {
            label: self.per_class
            for label in (*range(len(dataset.metainfo['classes'])), CLEAN_SURFACE)
        }
        chosen = []
        for index in range(len(dataset)):
            if not any(wanted.values()):
                break
            region = dataset[index]
            if wanted[region['label']]:
                wanted[region['label']] -= 1
                chosen.append(region)
        return sorted(chosen, key=lambda region: region['label'] % len(wanted))

    @torch.no_grad()
    def _paint(self, model: DefectInpaintingDiffusion, regions: list[dict]) -> list[Tensor]:
        data = {
            key: torch.stack([torch.as_tensor(region[key]) for region in regions])
            for key in ('image', 'region', 'box', 'label')
        }
        data = model.data_preprocessor(data)
        noise = [noise_of(index, tuple(data['image'].shape[1:])) for index in range(len(regions))]
        was_training = model.training
        model.eval()
        batch = to_batch(data['image'], data['region'], data['box'])
        painted = sample_regions(
            model.denoiser,
            model.scheduler,
            batch,
            model.denoiser.class_index(data['label']),
            torch.stack(noise).to(data['image'].device),
            self.num_steps,
            self.guidance,
        )
        model.train(was_training)
        return list(to_pixels(painted, batch.brightness))


def _panels(region: dict, painted: Tensor, name: str) -> list[Image.Image]:
    image, mask = region['image'], region['region']
    given = torch.where(mask > 127, torch.zeros_like(image), image)
    captions = (name, 'painted', 'real')
    return [
        draw_panel(_picture(pixels), [], caption)
        for pixels, caption in zip((given, painted, image), captions, strict=True)
    ]


def _picture(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.expand(3, -1, -1).permute(1, 2, 0).numpy())
