"""From noise, or from a reference, to regions: DPM-Solver++ with classifier-free guidance."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from diffusers import EDMDPMSolverMultistepScheduler
from torch import Tensor

from .denoiser import PatchDenoiser
from .region_batch import RegionBatch


@torch.no_grad()
def sample_regions(
    denoiser: PatchDenoiser,
    scheduler: EDMDPMSolverMultistepScheduler,
    batch: RegionBatch,
    classes: Tensor,
    noise: Tensor,
    num_steps: int = 20,
    guidance: float = 1.0,
    start: float = 1.0,
) -> Tensor:
    """Paints regions (DPM-Solver++, arXiv 2211.01095; start from a picture as in arXiv 2108.01073).

    Args:
        denoiser: The network.
        scheduler: That of the training; is copied, since it keeps the state of one sampling.
        batch: Surroundings, regions and boxes; inside the region ``image`` holds what to start
            from, and matters only where ``start`` is below 1.
        classes: (N,), indices of the denoiser's embeddings.
        noise: (N, C, S, S), standard normal.
        num_steps: Steps from pure noise; in proportion fewer from a picture.
        guidance: Weight of the class against any class; 1 uses the class alone and costs half.
        start: Share of the steps to take, in (0, 1]; below 1 from the picture with noise.

    Returns:
        (N, C, S, S), in the units of ``batch.image``, which it equals outside the region.
    """
    scheduler = deepcopy(scheduler)
    scheduler.set_timesteps(num_steps)
    skipped = min(round(num_steps * (1 - start)), num_steps - 1)
    scheduler.set_begin_index(skipped)
    known, masks = batch.known(), batch.masks()
    noisy = noise * scheduler.sigmas[skipped].to(noise)
    if skipped:
        noisy = batch.image + noisy
    for step in scheduler.timesteps[skipped:]:
        scaled = scheduler.scale_model_input(noisy, step)
        times = step.expand(len(noise)).to(noise)
        predicted = denoiser(scaled, known, masks, times, classes)
        if guidance != 1.0:
            of_any = torch.full_like(classes, denoiser.any_class)
            free = denoiser(scaled, known, masks, times, of_any)
            predicted = free + guidance * (predicted - free)
        noisy = scheduler.step(predicted, step, noisy).prev_sample
    return known + noisy * batch.region


def noise_of(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Returns the noise that belongs to a seed, on the CPU, whatever device computes later."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))
