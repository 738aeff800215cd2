"""The network of the diffusion model: a diffusers UNet on patches of pixels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from diffusers import UNet2DModel
from torch import Tensor, nn

from mmdsym.errors import UserError

from .synthesiser import CLEAN_SURFACE


class PatchDenoiser(nn.Module):
    """Predicts what to remove from a noisy region, from its surroundings, its mask and its class.

    Each patch of ``patch_size`` x ``patch_size`` pixels becomes the channels of one cell, so that
    fine texture costs no more than a coarse grid does.

    Args:
        num_classes: Defect classes; clean surface and "any" (for classifier-free guidance, arXiv
            2207.12598) are added.
        crop_size: Side of the regions in pixels, a multiple of ``patch_size``.
        channels: 1 for grey images, 3 for colour.
        patch_size: In pixels.
        unet: Arguments of :class:`diffusers.UNet2DModel`, without sizes and channels at its ends.

    Raises:
        UserError: The crop cannot be divided into patches that the UNet can halve as it must.
    """

    def __init__(
        self, num_classes: int, crop_size: int, channels: int, patch_size: int, unet: Mapping
    ) -> None:
        super().__init__()
        cells = crop_size // patch_size
        halvings = 2 ** (len(unet['block_out_channels']) - 1)
        if crop_size % patch_size or cells % halvings:
            raise UserError(
                f'crop_size {crop_size} must be a multiple of patch_size x {halvings} = '
                f'{patch_size * halvings}: change crop_size or patch_size.'
            )
        self.num_classes = num_classes
        self.patch_size = patch_size
        area = patch_size**2
        # Noisy region and surroundings with all their channels, two masks with one each.
        self.unet = UNet2DModel(
            sample_size=cells,
            in_channels=area * (2 * channels + 2),
            out_channels=area * channels,
            num_class_embeds=num_classes + 2,
            **unet,
        )

    @classmethod
    def around(cls, unet: UNet2DModel, num_classes: int, patch_size: int) -> PatchDenoiser:
        """Returns the denoiser around a network that was trained as part of one."""
        denoiser = cls.__new__(cls)
        nn.Module.__init__(denoiser)
        denoiser.num_classes, denoiser.patch_size, denoiser.unet = num_classes, patch_size, unet
        return denoiser

    @property
    def any_class(self) -> int:
        """Index of the embedding that stands for any class."""
        return self.num_classes + 1

    def class_index(self, labels: Tensor) -> Tensor:
        """Returns the index of each label's embedding; clean surface follows the classes."""
        return torch.where(labels == CLEAN_SURFACE, self.num_classes, labels)

    def forward(
        self, noisy: Tensor, known: Tensor, masks: Tensor, steps: Tensor, classes: Tensor
    ) -> Tensor:
        """Returns the prediction, of the shape of ``noisy``.

        Args:
            noisy: (N, C, S, S), of unit variance.
            known: (N, C, S, S), the surroundings, 0 where the region is.
            masks: (N, 2, S, S), region and box in [0, 1].
            steps: (N,), what stands for the noise level.
            classes: (N,), indices of embeddings.
        """
        given = F.pixel_unshuffle(torch.cat([noisy, known, masks], dim=1), self.patch_size)
        given = given.to(memory_format=torch.channels_last)
        predicted = self.unet(given, steps, class_labels=classes).sample
        return F.pixel_shuffle(predicted, self.patch_size)
