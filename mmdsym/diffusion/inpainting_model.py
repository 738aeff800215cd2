"""The diffusion model that paints defects, as MMEngine trains it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers import DDPMScheduler
from mmengine.model import BaseModel
from torch import Tensor

from mmdsym.registry import MODELS

from .denoiser import PatchDenoiser
from .region_batch import to_unit_range


@MODELS.register_module()
class DefectInpaintingDiffusion(BaseModel):
    """Learns to fill a masked region of a surface with a defect of a class, or with none.

    Conditional denoising diffusion (arXiv 2006.11239) with classifier-free guidance (arXiv
    2207.12598); losses of time steps are weighted as in Min-SNR (arXiv 2303.09556).

    Args:
        num_classes: Defect classes; filled in from the training data when ``None`` in a config.
        denoiser: Arguments of :class:`mmdsym.diffusion.denoiser.PatchDenoiser`.
        noise_schedule: Arguments of :class:`diffusers.DDPMScheduler`, among them ``beta_schedule``
            and ``prediction_type``.
        drop_class: Share of examples trained with any class, in [0, 1].
        surroundings_weight: Weight of the loss outside the region.
        min_snr: Signal-to-noise ratio above which time steps count no more.
        data_preprocessor: As in MMEngine.
    """

    def __init__(
        self,
        num_classes: int,
        denoiser: Mapping,
        noise_schedule: Mapping,
        drop_class: float = 0.15,
        surroundings_weight: float = 0.1,
        min_snr: float = 5.0,
        data_preprocessor: Mapping | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.denoiser = PatchDenoiser(num_classes=num_classes, **denoiser)
        self.scheduler = DDPMScheduler(**noise_schedule)
        self.drop_class = drop_class
        self.surroundings_weight = surroundings_weight
        self.min_snr = min_snr

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
        batch = to_unit_range(image, region, box)
        classes = self.denoiser.class_index(label)
        if mode == 'loss':
            steps = torch.randint(self.scheduler.config.num_train_timesteps, label.shape)
            dropped = torch.rand(label.shape) < self.drop_class
            classes = torch.where(dropped.to(label.device), self.denoiser.any_class, classes)
            noise = torch.randn_like(batch.image)
            return dict(loss=self._losses(*batch, classes, steps.to(label.device), noise).mean())
        losses = self._fixed_losses(*batch, classes)
        return [
            dict(loss=loss, label=at)
            for loss, at in zip(losses.detach().tolist(), label.tolist(), strict=True)
        ]

    def _losses(
        self,
        image: Tensor,
        region: Tensor,
        box: Tensor,
        classes: Tensor,
        steps: Tensor,
        noise: Tensor,
    ) -> Tensor:
        """Weighted squared error of each example, shape (N,)."""
        noisy = self.scheduler.add_noise(image, noise, steps)
        masks = torch.cat([region, box], dim=1)
        predicted = self.denoiser(noisy, image * (1 - region), masks, steps, classes).float()
        error = (predicted - self._target(image, noise, steps)) ** 2
        weight = region + self.surroundings_weight * (1 - region)
        losses = (error * weight).sum(dim=(1, 2, 3)) / weight.expand_as(error).sum(dim=(1, 2, 3))
        return losses * self._step_weight(steps)

    def _fixed_losses(self, image: Tensor, region: Tensor, box: Tensor, classes: Tensor) -> Tensor:
        """Losses that differ from one validation to the next by the model alone, shape (N,)."""
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(image.shape[1:], generator=generator).to(image).expand_as(image)
        last = self.scheduler.config.num_train_timesteps
        points = [last // 10, last * 4 // 10, last * 7 // 10, last * 19 // 20]
        each = [
            self._losses(image, region, box, classes, torch.full_like(classes, at), noise)
            for at in points
        ]
        return torch.stack(each).mean(dim=0)

    def _target(self, image: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        kind = self.scheduler.config.prediction_type
        if kind == 'v_prediction':
            return self.scheduler.get_velocity(image, noise, steps)
        return noise if kind == 'epsilon' else image

    def _step_weight(self, steps: Tensor) -> Tensor:
        signal = self.scheduler.alphas_cumprod.to(steps.device)[steps]
        ratio = signal / (1 - signal).clamp(min=1e-8)
        kind = self.scheduler.config.prediction_type
        if kind == 'v_prediction':
            # Its plain loss counts like a ratio of one more, so that pure noise keeps its weight.
            return ((ratio + 1).clamp(max=self.min_snr + 1)) / (ratio + 1)
        clamped = ratio.clamp(max=self.min_snr)
        return clamped / ratio.clamp(min=1e-4) if kind == 'epsilon' else clamped
