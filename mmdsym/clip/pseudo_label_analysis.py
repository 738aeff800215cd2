"""Scores an unlabelled set as training would, and only then looks at its truth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.utils import get_test_pipeline_cfg
from mmengine.dataset import pseudo_collate
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
from mmdsym.models import (
    LabelledPredictions,
    candidates_shown,
    fuse_views,
    predict_turned,
    suppress,
)

from .box_embedder import BoxEmbedder
from .embedding_reuse import EmbeddingMemory
from .filter_building import BOX_KINDS, build_filter, build_scorer
from .pseudo_label_filter import PseudoLabelFilter

TEACHER, CLIP, FUSED = 'teacher', 'clip', 'fused'
_SAME_BOX = 0.9999
_BATCH = 8


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

    def countable(self, truth: Sequence[TrueBoxes]) -> JudgedPool:
        """Returns the boxes that can be found right or wrong."""
        masks = [
            true.countable(found.bboxes, found.labels)
            for found, true in zip(self.predictions, truth, strict=True)
        ]
        return JudgedPool(
            self.image_ids,
            [found[mask] for found, mask in zip(self.predictions, masks, strict=True)],
            self.samples,
            {
                name: [score[mask] for score, mask in zip(scores, masks, strict=True)]
                for name, scores in self.scores.items()
            },
        )


def predict_pool(
    detector: nn.Module,
    paths: Sequence[Path],
    image_ids: Sequence[int],
    turned: bool = False,
    fused: bool = False,
) -> JudgedPool:
    """Runs a plain detector on image files.

    Args:
        detector: As ``mmdet.apis.init_detector`` returns it.
        paths: Of the images.
        image_ids: Of the images.
        turned: Whether to look at turned images, too.
        fused: Whether the boxes found on turned images are fused with the others.

    Raises:
        UserError: An image does not exist or cannot be read.
    """
    for path in paths:
        if not path.is_file():
            raise UserError(f'the image {path} does not exist: correct --images or restore it.')
    pipeline = Compose(get_test_pipeline_cfg(detector.cfg))
    predictions, samples = [], []
    with tqdm(total=len(paths), desc='detecting', unit='image', disable=None) as bar:
        for start in range(0, len(paths), _BATCH):
            loaded = [_load(pipeline, path) for path in paths[start:][:_BATCH]]
            found, of_batch = _predict_batch(detector, loaded, turned, fused)
            predictions += found
            samples += of_batch
            bar.update(len(loaded))
    teacher = [found.scores for found in predictions]
    return JudgedPool(list(image_ids), predictions, samples, {TEACHER: teacher})


def _load(pipeline: Compose, path: Path) -> dict:
    # OpenCV gives nothing for what it cannot decode, and MMCV then asserts.
    try:
        return pipeline(dict(img_path=str(path), img_id=0))
    except (AssertionError, OSError, cv2.error) as error:
        raise UserError(
            f'the image {path} cannot be read ({type(error).__name__}): restore it, or leave it '
            'out of the annotations.'
        ) from error


@torch.no_grad()
def _predict_batch(
    detector: nn.Module, loaded: list[dict], turned: bool, fused: bool
) -> tuple[list[InstanceData], list]:
    """The boxes of some images in their original frames, with candidates and views."""
    data = detector.data_preprocessor(pseudo_collate(loaded), False)
    inputs, samples = data['inputs'], data['data_samples']
    with candidates_shown(detector) as settings:
        results = detector.predict(inputs, samples, rescale=True)
    boxes = [result.pred_instances for result in results]
    found = [suppress(of_image, **settings) if settings else of_image for of_image in boxes]
    if turned or fused:
        views = predict_turned(detector, inputs, samples)
        for index, (view, sample) in enumerate(zip(views, samples, strict=True)):
            view.bboxes = view.bboxes / view.bboxes.new_tensor(sample.scale_factor).repeat(2)
            known = found[index].metainfo | dict(views=[view])
            if fused:
                found[index] = fuse_views([found[index], view])
            found[index].set_metainfo(known)
    return found, samples


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
            self.filters |= _ablation(common)
        for judge in self.filters.values():
            judge.embedder = embedder
        self.thresholds: dict[str, np.ndarray] = {}

    @property
    def main(self) -> PseudoLabelFilter:
        """The filter with all evidence."""
        return self.filters[FUSED]

    @property
    def wants_turned_view(self) -> bool:
        """Whether a filter wants the boxes of turned images."""
        return any(judge.wants_turned_view for judge in self.filters.values())

    def fit(
        self,
        calibration: JudgedPool,
        truth: Sequence[TrueBoxes],
        further: JudgedPool,
        further_truth: Sequence[TrueBoxes],
    ) -> None:
        """Fits all filters, and the thresholds of teacher and fused score.

        Args:
            calibration: Labelled images that did not train the teacher.
            truth: Their boxes.
            further: Labelled images that trained it.
            further_truth: Their boxes.
        """
        calibration, further = calibration.countable(truth), further.countable(further_truth)
        truth, further_truth = ([t.counted for t in of] for of in (truth, further_truth))
        true = _as_instances(truth)
        more = LabelledPredictions(
            further.predictions, further.samples, _as_instances(further_truth)
        )
        held_out = {TEACHER: calibration.scores[TEACHER]}
        for name, judge in self.filters.items():
            held_out[name] = judge.fit(
                calibration.predictions,
                calibration.samples,
                true,
                more if judge.wants_further else None,
            )
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
        truth = [t.counted for t in read_truth(truth_file, self.classes, pool.image_ids)]
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


def _ablation(common: Mapping) -> dict[str, PseudoLabelFilter]:
    """Filters with each kind of evidence alone beside the teacher, and with parts left out."""
    common, crops = dict(common), dict(common.get('crops') or {})
    common.pop('evidence', None)
    no_veto = dict(common, crops={**crops, 'veto_cost': 0.0})
    of_boxes = [kind for kind in BOX_KINDS if kind != TEACHER]
    judges = build_filter(**no_veto)
    of_crops = [] if judges.crops.evidence is None else list(judges.crops.evidence.kinds)
    chosen = {f'{TEACHER}+{kind}': [kind] for kind in (*of_boxes, *of_crops)}
    chosen['boxes alone'] = ['context', 'cluster']
    chosen['boxes+stability'] = of_boxes
    filters = {name: build_filter(**no_veto, evidence=kinds) for name, kinds in chosen.items()}
    filters['without veto'] = judges
    gated = dict(no_veto, evidence=[TEACHER])
    filters[f'{TEACHER}+image gate'] = build_filter(**gated, gate={})
    return filters


def _as_instances(truth: Sequence[TrueBoxes]) -> list[InstanceData]:
    return [InstanceData(bboxes=t.boxes, labels=t.labels) for t in truth]
