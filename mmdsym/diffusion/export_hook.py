"""Writes the trained diffusion model where the synthesis looks for it."""

from __future__ import annotations

from pathlib import Path

from mmengine.dist import master_only
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmdsym.registry import HOOKS

from .region_transform import CropDefectRegion
from .weights import DiffusionDescription, save_diffusion


@HOOKS.register_module()
class DiffusionExportHook(Hook):
    """Saves the model as a diffusers folder when training ends, averaged weights if there are.

    Args:
        folder: Where to; an earlier model there is replaced.
    """

    priority = 'LOWEST'

    def __init__(self, folder: str) -> None:
        self.folder = folder

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Writes the folder."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                model = hook.ema_model.module
        dataset = runner.train_dataloader.dataset
        crop = next(
            step for step in dataset.pipeline.transforms if isinstance(step, CropDefectRegion)
        )
        about = DiffusionDescription(
            classes=tuple(dataset.metainfo['classes']),
            channels=crop.channels,
            crop_size=crop.crop_size,
            patch_size=model.denoiser.patch_size,
            min_side=crop.min_side,
            contexts=tuple(crop.contexts),
        )
        earlier = ', in place of an earlier one' if Path(self.folder).exists() else ''
        save_diffusion(self.folder, model.denoiser.unet, model.scheduler, about)
        runner.logger.info(f'The diffusion model is in {self.folder}{earlier}.')
