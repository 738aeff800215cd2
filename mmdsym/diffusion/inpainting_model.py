"""The diffusion model that paints defects, as MMEngine trains it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers import EDMDPMSolverMultistepScheduler
from mmengine.model import BaseModel
from torch import Tensor

from mmdsym.half_precision import autocast_where_fast
from mmdsym.registry import MODELS

from .denoiser import PatchDenoiser
from .region_batch import RegionBatch, to_batch


@MODELS.register_module()
class DefectInpaintingDiffusion(BaseModel):
    """Learns to fill a masked region of a surface with a defect of a class, or with none.

    Conditional denoising diffusion with the preconditioning and the noise levels of Karras et al.
    (arXiv 2206.00364), and classifier-free guidance (arXiv 2207.12598). On a CPU that is
    faster in bfloat16 it learns in that, which nearly halves the time; painting stays in float32.

    Args:
        num_classes: Defect classes; filled in from the training data when ``None`` in a config.
        denoiser: Arguments of :class:`mmdsym.diffusion.denoiser.PatchDenoiser`.
        noise_schedule: Arguments of :class:`diffusers.EDMDPMSolverMultistepScheduler`, among them
            ``prediction_type`` and ``sigma_data``, the standard deviation of pixels.
        noise_levels: ``mean`` and ``std`` of the logarithm of the noise levels in training.
        drop_class: Share of examples trained with any class, in [0, 1].
        surroundings_weight: Weight of the loss outside the region.
        pixel_std: Standard deviation of the pixels of a region, in units of half the range of grey
            levels: what the loss of each noise level is measured by, so that coarse structure does
            not outweigh texture. ``None`` takes ``sigma_data``.
        data_preprocessor: As in MMEngine.
    """

    def __init__(
        self,
        num_classes: int,
        denoiser: Mapping,
        noise_schedule: Mapping,
        noise_levels: Mapping[str, float],
        drop_class: float = 0.15,
        surroundings_weight: float = 0.1,
        pixel_std: float | None = None,
        data_preprocessor: Mapping | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.denoiser = PatchDenoiser(num_classes=num_classes, **denoiser)
        self.scheduler = EDMDPMSolverMultistepScheduler(**noise_schedule)
        self.noise_levels = dict(noise_levels)
        self.drop_class = drop_class
        self.surroundings_weight = surroundings_weight
        self.pixel_std = pixel_std or self.scheduler.config.sigma_data

    def forward(
        self,
        image: Tensor,
        region: Tensor,
        box: Tensor,
        label: Tensor,
        mode: str = 'tensor',
    ) -> dict[str, Tensor] | list[dict]:
        """Returns the loss, or in mode ``'predict'`` one dict with ``loss`` and ``label`` each.

        Args:
            image: (N, C, S, S), uint8.
            region: (N, 1, S, S), uint8, 255 where the model paints.
            box: (N, 1, S, S), uint8, 255 where the defect lies.
            label: (N,), class index or -1 for clean surface.
            mode: ``'loss'``, or ``'predict'`` for the losses at fixed time steps and noise.
        """
        batch = to_batch(image, region, box)
        classes = self.denoiser.class_index(label)
        if mode == 'loss':
            dropped = torch.rand(label.shape).to(label.device) < self.drop_class
            classes = torch.where(dropped, self.denoiser.any_class, classes)
            noise = torch.randn_like(batch.image)
            return dict(loss=self._losses(batch, classes, self._draw_levels(label), noise).mean())
        losses = self._fixed_losses(batch, classes)
        return [
            dict(loss=loss, label=at)
            for loss, at in zip(losses.detach().tolist(), label.tolist(), strict=True)
        ]

    def _draw_levels(self, label: Tensor) -> Tensor:
        drawn = torch.randn(label.shape) * self.noise_levels['std'] + self.noise_levels['mean']
        return drawn.exp().to(label.device)

    def _losses(self, batch: RegionBatch, classes: Tensor, levels: Tensor, noise: Tensor) -> Tensor:
        """Squared error of each example, of similar size at each noise level, shape (N,)."""
        sigma = levels.view(-1, 1, 1, 1)
        noisy = batch.image + noise * sigma
        with autocast_where_fast(noisy.device):
            predicted = self.denoiser(
                self.scheduler.precondition_inputs(noisy, sigma),
                batch.known(),
                batch.masks(),
                self.scheduler.precondition_noise(levels),
                classes,
            ).float()
        # The picture is this plus a multiple of the prediction, see arXiv 2206.00364, section 5.
        without = self.scheduler.precondition_outputs(noisy, torch.zeros_like(noisy), sigma)
        unit = self.scheduler.precondition_outputs(noisy, torch.ones_like(noisy), sigma) - without
        error = (predicted - (batch.image - without) / unit) ** 2
        weight = batch.region + self.surroundings_weight * (1 - batch.region)
        total = weight.expand_as(error).sum(dim=(1, 2, 3))
        return (error * weight).sum(dim=(1, 2, 3)) / total * self._level_weight(levels)

    def _level_weight(self, levels: Tensor) -> Tensor:
        """From the units of the network's output to those that ``pixel_std`` would give it."""
        grain, pixels = self.scheduler.config.sigma_data**2, self.pixel_std**2
        return (levels**2 / pixels + 1) / (levels**2 / grain + 1)

    def _fixed_losses(self, batch: RegionBatch, classes: Tensor) -> Tensor:
        """Losses that differ from one validation to the next by the model alone, shape (N,)."""
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(batch.image.shape[1:], generator=generator).to(batch.image)
        noise = noise.expand_as(batch.image)
        mean, spread = self.noise_levels['mean'], self.noise_levels['std']
        levels = [torch.full(classes.shape, mean + at * spread).exp() for at in (-1.0, 0.0, 1.0)]
        each = [self._losses(batch, classes, level.to(noise), noise) for level in levels]
        return torch.stack(each).mean(dim=0)
