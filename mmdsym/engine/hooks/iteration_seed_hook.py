"""Random numbers that do not depend on how often a run was interrupted."""

from __future__ import annotations

import random

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdsym.registry import HOOKS


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Seeds Python, NumPy and torch before each iteration.

    What a model draws at iteration ``i`` then follows from the run's seed, ``i`` and the rank
    alone, so that a resumed run draws what an uninterrupted one would have drawn. Data loaders
    with at least one worker have random numbers of their own.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Seeds."""
        sequence = np.random.SeedSequence((runner.seed or 0, runner.iter, get_rank()))
        seed = int(sequence.generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
