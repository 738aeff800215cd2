"""The quality of pseudo-labels as a metric of MMEngine's evaluator."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from mmdsym.errors import UserError
from mmdsym.registry import METRICS

from .pseudo_label_quality import (
    PseudoLabelQuality,
    ScoredBoxes,
    TrueBoxes,
    measure_quality,
)
from .pseudo_label_report import write_report


@METRICS.register_module()
class PseudoLabelMetric(BaseMetric):
    """Precision, recall and AP@0.5 of pseudo-labels, for each of their scores.

    The truth is known to the evaluator alone: the file is read when all predictions are made.

    Args:
        ann_file: COCO json with the ground truth of (at least) the images to evaluate.
        scores: Name of a score in the results to the field of ``pred_instances`` that holds it,
            such as ``dict(teacher='teacher_scores', fused='scores')``. The first is the reference.
        reference_precision: The scores are compared at the recall where the reference has this
            precision.
        out: Folder for curves (PNG) and tables (CSV, Markdown, json); ``None`` writes none.
        collect_device: As in MMEngine.
        prefix: As in MMEngine.

    Raises:
        UserError: The file is missing, or no score is named.
    """

    default_prefix = 'pseudo_labels'

    def __init__(
        self,
        ann_file: str,
        scores: Mapping[str, str] | None = None,
        reference_precision: float = 0.8,
        out: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.score_fields = dict(scores) if scores is not None else {'teacher': 'scores'}
        if not self.score_fields:
            raise UserError('PseudoLabelMetric compares no score: name at least one in scores.')
        if not Path(ann_file).is_file():
            raise UserError(f'the truth file {ann_file} does not exist: correct ann_file.')
        self.ann_file = Path(ann_file)
        self.reference_precision = reference_precision
        self.out = out
        self.quality: PseudoLabelQuality | None = None

    def process(self, data_batch: dict, data_samples: Sequence[Mapping]) -> None:
        """Collects the boxes of a batch.

        Args:
            data_batch: Not used.
            data_samples: Each with ``img_id`` and ``pred_instances`` (``bboxes`` in the frame of
                the original image, ``labels`` and the fields of the scores).

        Raises:
            UserError: A score is missing.
        """
        for sample in data_samples:
            found = sample['pred_instances']
            for field in self.score_fields.values():
                if field not in found:
                    raise UserError(
                        f"the predictions have no '{field}': name in PseudoLabelMetric.scores "
                        'only fields that the model gives its boxes.'
                    )
            boxes = ScoredBoxes(
                found['bboxes'].cpu(),
                found['labels'].cpu(),
                {name: found[field].cpu() for name, field in self.score_fields.items()},
            )
            self.results.append((sample['img_id'], boxes))

    def compute_metrics(self, results: list[tuple[int, ScoredBoxes]]) -> dict[str, float]:
        """Returns, for each score, ``<score>/AP50``, ``/recall_at_precision``, and more.

        Raises:
            UserError: The truth does not know an image or has other classes.
        """
        classes = tuple(self.dataset_meta['classes'])
        truth = read_truth(self.ann_file, classes, [image for image, _ in results])
        self.quality = measure_quality(
            [boxes for _, boxes in results],
            truth,
            classes,
            list(self.score_fields),
            self.reference_precision,
        )
        if self.out:
            paths = write_report(self.quality, Path(self.out))
            print_log(f'Pseudo-label quality: {paths[0]}', logger='current')
        return as_metrics(self.quality, classes)


def as_metrics(quality: PseudoLabelQuality, classes: Sequence[str]) -> dict[str, float]:
    """Returns the table as metrics by name."""
    metrics = {}
    for row in quality.rows:
        if row.class_name in classes:
            metrics[f'{row.score}/AP50/{row.class_name}'] = row.average_precision
            continue
        metrics[f'{row.score}/AP50'] = row.average_precision
        metrics[f'{row.score}/recall_at_precision'] = row.recall_at_precision
        metrics[f'{row.score}/precision_at_reference'] = row.precision_at_reference
    return metrics


def read_truth(path: Path, classes: Sequence[str], image_ids: Sequence[int]) -> list[TrueBoxes]:
    """Reads the ground truth of some images.

    Args:
        path: COCO json.
        classes: Class names, in the order of the labels.
        image_ids: Images, by their ids in the file.

    Returns:
        One entry for each id.

    Raises:
        UserError: The file cannot be read, lacks an image, or has other classes.
    """
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        names = {entry['id']: entry['name'] for entry in content['categories']}
        known = {entry['id'] for entry in content['images']}
        annotations = content['annotations']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{path} cannot be read as COCO annotations ({error!r}): give the json that '
            'tools/prepare_dataset.py wrote.'
        ) from None
    if sorted(names.values()) != sorted(classes):
        raise UserError(
            f'{path} has the classes {sorted(names.values())}, the detector {sorted(classes)}: '
            'give the truth of the data that the detector was trained on.'
        )
    lacking = [image for image in image_ids if image not in known]
    if lacking:
        raise UserError(
            f'{path} does not list image id {lacking[0]} ({len(lacking)} of {len(image_ids)} '
            'images are missing in it): give the file that the unlabelled images were taken from.'
        )
    labels = {number: list(classes).index(name) for number, name in names.items()}
    rows: dict[int, list] = {image: [] for image in image_ids}
    for entry in annotations:
        if entry['image_id'] in rows:
            rows[entry['image_id']].append(entry)
    return [_true_boxes(rows[image], labels) for image in image_ids]


def _true_boxes(entries: list[dict], labels: Mapping[int, int]) -> TrueBoxes:
    if not entries:
        return TrueBoxes.none()
    boxes = np.array([entry['bbox'] for entry in entries], dtype=np.float32)
    boxes[:, 2:] += boxes[:, :2]
    return TrueBoxes(
        torch.from_numpy(boxes),
        torch.tensor([labels[entry['category_id']] for entry in entries]),
        torch.tensor([bool(entry.get('iscrowd', 0)) for entry in entries]),
    )
