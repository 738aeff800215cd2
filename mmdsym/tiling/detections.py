"""Boxes that were found on whole images, and their way to a json and to a metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mmdsym.datasets.preparation.boxes import edges_to_coco
from mmdsym.evaluation import DefectMetric


@dataclass(frozen=True)
class Detections:
    """What was found on one image, the best first.

    Attributes:
        boxes: Edges x1, y1, x2, y2 in pixels of the whole image, shape (n, 4).
        scores: In [0, 1], shape (n,).
        labels: Indices of classes, shape (n,).
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[tuple[Sequence[float], float, int]]) -> Detections:
        """Makes them of (edges, score, label) in any order."""
        ordered = sorted(rows, key=lambda row: -row[1])
        return cls(
            np.array([edges for edges, _, _ in ordered], dtype=np.float32).reshape(-1, 4),
            np.array([score for _, score, _ in ordered], dtype=np.float32),
            np.array([label for _, _, label in ordered], dtype=np.int64),
        )

    def from_score(self, thresholds: Sequence[float]) -> Detections:
        """Returns those that score enough for their class.

        Args:
            thresholds: Least score of each class, shape (num_classes,).
        """
        enough = self.scores >= np.asarray(thresholds, dtype=np.float32)[self.labels]
        return Detections(self.boxes[enough], self.scores[enough], self.labels[enough])

    def as_coco(self, image_id: int, category_ids: Sequence[int]) -> list[dict]:
        """Returns COCO results: one dict with image, category, box and score for each."""
        return [
            {
                'image_id': image_id,
                'category_id': category_ids[label],
                'bbox': [round(float(value), 2) for value in edges_to_coco(edges)],
                'score': round(float(score), 4),
            }
            for edges, score, label in zip(self.boxes, self.scores, self.labels, strict=True)
        ]


def evaluate(
    found: Mapping[int, Detections], annotations: Path, classes: Sequence[str]
) -> dict[str, float]:
    """Compares what was found with the truth, in pixels of the whole images.

    Args:
        found: Id of each image in the json to what was found on it.
        annotations: COCO json of the whole images.
        classes: Names of the labels, those of the json.

    Returns:
        What :class:`mmdsym.evaluation.DefectMetric` measures, in [0, 1].
    """
    metric = DefectMetric(ann_file=str(annotations), metric='bbox')
    metric.dataset_meta = dict(classes=tuple(classes))
    for image_id, detections in found.items():
        instances = dict(
            bboxes=torch.from_numpy(detections.boxes),
            scores=torch.from_numpy(detections.scores),
            labels=torch.from_numpy(detections.labels),
        )
        # The metric asks for a size in case that it has no json.
        sample = dict(pred_instances=instances, img_id=image_id, ori_shape=(0, 0))
        metric.process({}, [sample])
    metrics = metric.evaluate(len(found))
    return {name.removeprefix('coco/'): float(value) for name, value in metrics.items()}
