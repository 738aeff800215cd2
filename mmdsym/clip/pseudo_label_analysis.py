"""Scores an unlabelled set as training would, and only then looks at its truth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmdet.apis import inference_detector
from mmengine.structures import InstanceData
from torch import Tensor, nn
from tqdm import tqdm

from mmdsym.errors import UserError
from mmdsym.evaluation import (
    JudgedDetections,
    PseudoLabelQuality,
    ScoredBoxes,
    TrueBoxes,
    judge_detections,
    keep_thresholds,
    measure_quality,
    read_truth,
)
from mmdsym.evaluation.foreign_removal import ForeignRemoval, PassedBoxes, measure_removal
from mmdsym.models import candidates_shown, suppress

from .box_embedder import BoxEmbedder
from .embedding_reuse import EmbeddingMemory
from .filter_building import build_filter, build_scorer
from .pseudo_label_filter import PseudoLabelFilter

TEACHER, CLIP, FUSED = 'teacher', 'clip', 'fused'
_SAME_BOX = 0.9999


@dataclass
class JudgedPool:
    """Images with the teacher's boxes and every score that they were given.

    Attributes:
        image_ids: Of the annotation file; the position for a plain folder.
        predictions: Per image ``bboxes``, ``labels`` and the teacher's ``scores``.
        samples: Per image its meta data.
        scores: Name to one tensor per image.
    """

    image_ids: list[int]
    predictions: list[InstanceData]
    samples: list
    scores: dict[str, list[Tensor]]

    def concatenated(self, name: str) -> np.ndarray:
        """Returns one score of all boxes of all images."""
        return np.concatenate([np.zeros(0), *(part.cpu().numpy() for part in self.scores[name])])

    @property
    def labels(self) -> np.ndarray:
        """Class indices of all boxes of all images."""
        parts = [found.labels.cpu().numpy() for found in self.predictions]
        return np.concatenate([np.zeros(0, dtype=int), *parts])


def predict_pool(
    detector: nn.Module, paths: Sequence[Path], image_ids: Sequence[int]
) -> JudgedPool:
    """Runs a plain detector on image files.

    Raises:
        UserError: An image does not exist.
    """
    for path in paths:
        if not path.is_file():
            raise UserError(f'the image {path} does not exist: correct --images or restore it.')
    predictions, samples = [], []
    with candidates_shown(detector) as settings:
        for path in tqdm(paths, desc='detecting', unit='image', disable=None):
            sample = inference_detector(detector, str(path))
            found = sample.pred_instances
            sample.set_metainfo(dict(img_path=str(path)))
            boxes = InstanceData(bboxes=found.bboxes, scores=found.scores, labels=found.labels)
            predictions.append(suppress(boxes, **settings) if settings else boxes)
            samples.append(sample)
    teacher = [found.scores for found in predictions]
    return JudgedPool(list(image_ids), predictions, samples, {TEACHER: teacher})


def image_list(ann_file: Path, images_dir: Path) -> tuple[list[Path], list[int]]:
    """Reads which images a COCO json lists, and nothing else of it.

    Raises:
        UserError: It cannot be read.
    """
    try:
        images = json.loads(ann_file.read_text(encoding='utf-8'))['images']
        return [images_dir / i['file_name'] for i in images], [i['id'] for i in images]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{ann_file} cannot be read as a COCO list of images ({error!r}): make it with '
            'tools/prepare_dataset.py.'
        ) from None


class Analysis:
    """The filters to compare, fitted on calibration images.

    Args:
        classes: Class names.
        scorer: Config of the scorer, or a scorer.
        labelled: See :func:`mmdsym.clip.build_filter`.
        ablation: Whether to fit filters with each kind of evidence alone beside the teacher, and
            ones without the veto and with the image-level gate alone.
        target_precision: Of the thresholds.
        **settings: Further arguments of :func:`mmdsym.clip.build_filter`.
    """

    def __init__(
        self,
        classes: Sequence[str],
        scorer: Mapping | nn.Module,
        labelled: Mapping,
        ablation: bool = False,
        target_precision: float = 0.8,
        **settings,
    ) -> None:
        self.classes = tuple(classes)
        self.target_precision = target_precision
        built = build_scorer(scorer, classes)
        # All filters look at the same crops: each is embedded once.
        embedder = BoxEmbedder(
            built, EmbeddingMemory(megabytes=1024, min_overlap=_SAME_BOX, boxes_per_image=200)
        )
        common = dict(classes=classes, scorer=built, labelled=labelled, **settings)
        self.filters = {FUSED: build_filter(**common)}
        if ablation:
            common.pop('evidence', None)
            for kind in list(self.filters[FUSED].evidence.kinds)[1:]:
                judge = build_filter(**common, evidence=['teacher', kind], veto_cost=0.0)
                self.filters[f'{TEACHER}+{kind}'] = judge
            self.filters['without veto'] = build_filter(**common, veto_cost=0.0)
            gated = build_filter(**common, evidence=['teacher'], gate={})
            self.filters[f'{TEACHER}+image gate'] = gated
        for judge in self.filters.values():
            judge.embedder = embedder
        self.thresholds: dict[str, np.ndarray] = {}

    @property
    def main(self) -> PseudoLabelFilter:
        """The filter with all evidence."""
        return self.filters[FUSED]

    def fit(self, calibration: JudgedPool, truth: Sequence[TrueBoxes]) -> None:
        """Fits all filters, and the thresholds of teacher and fused score."""
        true = [InstanceData(bboxes=t.boxes, labels=t.labels) for t in truth]
        held_out = {TEACHER: calibration.scores[TEACHER]}
        for name, judge in self.filters.items():
            held_out[name] = judge.fit(calibration.predictions, calibration.samples, true)
        for name, scores in held_out.items():
            judged = [
                judge_detections(found.bboxes, score, found.labels, t.boxes, t.labels)
                for found, score, t in zip(calibration.predictions, scores, truth, strict=True)
            ]
            self.thresholds[name] = keep_thresholds(
                JudgedDetections.concatenate(judged), len(self.classes), self.target_precision
            )

    def score(self, pool: JudgedPool) -> None:
        """Adds the scores of all filters, and CLIP's own, to a pool; 0 where CLIP was not asked."""
        for name, judge in self.filters.items():
            copies = [found[:] for found in pool.predictions]
            pool.scores[name] = judge(copies, pool.samples)
            if name == FUSED:
                pool.scores[CLIP] = [found.clip_scores.nan_to_num(0.0) for found in copies]

    def measure(
        self, pool: JudgedPool, truth_file: Path, reference_precision: float
    ) -> PseudoLabelQuality:
        """Reads the truth of a scored pool and compares all its scores."""
        truth = read_truth(truth_file, self.classes, pool.image_ids)
        others = [name for name in pool.scores if name not in (TEACHER, CLIP, FUSED)]
        names = [TEACHER, CLIP, FUSED, *others]
        found = [
            ScoredBoxes(
                image.bboxes.cpu(),
                image.labels.cpu(),
                {name: pool.scores[name][index].cpu().float() for name in names},
            )
            for index, image in enumerate(pool.predictions)
        ]
        return measure_quality(found, truth, self.classes, names, reference_precision)

    def foreign_removal(
        self, pool: JudgedPool, foreign: JudgedPool, truth_file: Path
    ) -> dict[str, ForeignRemoval]:
        """Says, for each filter, what it removes from foreign images and what that costs."""
        truth = read_truth(truth_file, self.classes, pool.image_ids)
        right = np.concatenate(
            [
                judge_detections(
                    found.bboxes, found.scores, found.labels, t.boxes, t.labels
                ).correct
                for found, t in zip(pool.predictions, truth, strict=True)
            ]
        )
        return {
            name: measure_removal(
                self._passed(foreign, name, np.ones(len(foreign.labels), dtype=bool)),
                self._passed(pool, name, right),
            )
            for name in self.filters
        }

    def _passed(self, pool: JudgedPool, name: str, chosen: np.ndarray) -> PassedBoxes:
        return PassedBoxes.select(
            pool.concatenated(TEACHER)[chosen],
            pool.concatenated(name)[chosen],
            pool.labels[chosen],
            self.thresholds[TEACHER],
            self.thresholds[name],
        )


def calibration_truth(
    ann_file: Path, classes: Sequence[str], ids: Sequence[int]
) -> list[TrueBoxes]:
    """Reads the boxes of the calibration images; those to be ignored are left out."""
    truth = read_truth(ann_file, classes, ids)
    return [
        TrueBoxes(t.boxes[~t.ignored], t.labels[~t.ignored], torch.zeros(int((~t.ignored).sum())))
        for t in truth
    ]
