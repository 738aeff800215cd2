"""How well crops are classified, and wrong extents recognised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric

from mmdsym.evaluation.held_out_quality import judge
from mmdsym.evaluation.temperature import expected_calibration_error, fit_temperature
from mmdsym.registry import METRICS


@METRICS.register_module()
class CropMetric(BaseMetric):
    """Accuracy and calibration of the class, and correlation of the expected overlap.

    - ``accuracy`` and ``balanced_accuracy`` (mean over classes), in [0, 1], and
      ``accuracy/<class>``, on crops as labelled;
    - ``crops``, the number of those, and ``better_than_chance``, 1 or 0, see
      :class:`mmdsym.evaluation.held_out_quality.HeldOutQuality`;
    - ``calibration_error``: expected calibration error in ten bins, in [0, 1], and
      ``best_temperature``, by which the logits would have to be divided;
    - ``overlap_r2``: share of the variance of the true IoU that the expected one explains, at most
      1, on crops of moved boxes (only with an extent head).
    """

    default_prefix = 'clip'

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        """Keeps what the metrics need of a batch."""
        keys = ('probabilities', 'label', 'overlap', 'jittered', 'expected_overlap')
        for sample in data_samples:
            self.results.append({key: sample[key].cpu() for key in keys if key in sample})

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Returns the metrics of all crops."""
        plain = [result for result in results if not result['jittered']]
        moved = [result for result in results if result['jittered']]
        metrics = self._classification(plain) if plain else {}
        if moved and 'expected_overlap' in moved[0]:
            truth = torch.stack([result['overlap'] for result in moved])
            found = torch.stack([result['expected_overlap'] for result in moved])
            spread = (truth - truth.mean()).square().sum().clamp(min=1e-9)
            metrics['overlap_r2'] = 1 - float((truth - found).square().sum() / spread)
        return metrics

    def _classification(self, results: list[dict]) -> dict[str, float]:
        probabilities = torch.stack([result['probabilities'] for result in results])
        labels = torch.stack([result['label'] for result in results]).long()
        right = (probabilities.argmax(dim=1) == labels).float()
        classes = [*self.dataset_meta['classes'], 'clean surface']
        of_class = {
            name: float(right[labels == label].mean())
            for label, name in enumerate(classes)
            if (labels == label).any()
        }
        logits = probabilities.clamp(min=1e-12).log()
        return dict(
            accuracy=float(right.mean()),
            crops=float(len(labels)),
            better_than_chance=float(judge(probabilities, labels).better_than_chance),
            balanced_accuracy=sum(of_class.values()) / len(of_class),
            calibration_error=expected_calibration_error(probabilities, labels),
            best_temperature=fit_temperature(logits, labels)[0],
            **{f'accuracy/{name}': value for name, value in of_class.items()},
        )
