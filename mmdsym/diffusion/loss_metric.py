"""Validation loss of the diffusion model, on labelled regions that did not train it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmengine.evaluator import BaseMetric

from mmdsym.registry import METRICS

from .synthesiser import CLEAN_SURFACE


@METRICS.register_module()
class DiffusionLossMetric(BaseMetric):
    """Mean loss over all regions, and over those of each class and of clean surface."""

    default_prefix = 'diffusion'

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Collects ``loss`` and ``label`` of each region."""
        self.results.extend((sample['label'], sample['loss']) for sample in data_samples)

    def compute_metrics(self, results: list[tuple[int, float]]) -> dict[str, float]:
        """Returns ``loss`` and ``loss_<class>``, each the mean of its regions."""
        labels, losses = (np.array(values) for values in zip(*results, strict=True))
        metrics = {'loss': float(losses.mean())}
        for label in np.unique(labels):
            name = (
                'clean_surface' if label == CLEAN_SURFACE else self.dataset_meta['classes'][label]
            )
            metrics[f'loss_{name}'] = float(losses[labels == label].mean())
        return metrics
