"""How well detections agree with the ground truth, measured by COCO's rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from mmdet.datasets.api_wrappers import COCO, COCOeval

from .predictions import ValidationData
from .quiet import quiet

RECALLS = np.linspace(0, 1, 101)
"""COCO gives the precision at these recalls."""

_MATCH_IOU = 0.5
_MAX_DETECTIONS = (100, 300, 1000)  # MMDetection's, so that the numbers are those of the log


@dataclass(frozen=True)
class Accuracy:
    """Average precision of all classes and of each.

    Attributes:
        map50: Mean over the classes of AP at an overlap of 0.5, in [0, 1]; NaN without boxes.
        map: Likewise, mean over the overlaps 0.5 to 0.95.
        ap50: Of each class, shape (num_classes,); NaN for a class without boxes.
        precision: At an overlap of 0.5 and :data:`RECALLS`, shape (101, num_classes); NaN likewise.
        true_boxes: Number of true boxes of each class, shape (num_classes,).
    """

    map50: float
    map: float
    ap50: np.ndarray
    precision: np.ndarray
    true_boxes: np.ndarray


@dataclass(frozen=True)
class Agreement:
    """How many boxes agree with the truth.

    Attributes:
        right: Detections that are right.
        found: All detections.
        true: All true boxes.
    """

    right: int
    found: int
    true: int

    @property
    def precision(self) -> float:
        """Share of the detections that is right, in [0, 1]; NaN without any."""
        return self.right / self.found if self.found else float('nan')

    @property
    def recall(self) -> float:
        """Share of the true boxes that was found, in [0, 1]; NaN without any."""
        return self.right / self.true if self.true else float('nan')

    @property
    def f1(self) -> float:
        """Harmonic mean of both, in [0, 1]; NaN where nothing is and nothing was found."""
        boxes = self.found + self.true
        return 2 * self.right / boxes if boxes else float('nan')


@dataclass(frozen=True)
class Matches:
    """Detections from certain scores on, paired with true boxes that they overlap by half.

    Whatever the classes: the best score of an image goes first, and takes the true box that it
    covers best.

    Attributes:
        confusion: (num_classes + 1, num_classes + 1); rows are true classes and columns predicted
            ones. The last column counts true boxes that were missed, the last row detections where
            nothing is.
        right, false, missed: Image id to the number of detections of the right class, of the other
            detections, and of true boxes without a detection of their class.
    """

    confusion: np.ndarray
    right: Mapping[int, int]
    false: Mapping[int, int]
    missed: Mapping[int, int]

    def f1(self, image: int) -> float:
        """F1 of an image, in [0, 1]; 1 where nothing is and nothing was found."""
        right, wrong = self.right[image], self.false[image] + self.missed[image]
        return 2 * right / (2 * right + wrong) if right + wrong else 1.0

    def agreement(self, label: int | None = None) -> Agreement:
        """How far detections and truth agree in a class, or in all together."""
        chosen = slice(None, -1) if label is None else slice(label, label + 1)
        return Agreement(
            right=int(np.diag(self.confusion)[chosen].sum()),
            found=int(self.confusion[:, chosen].sum()),
            true=int(self.confusion[chosen].sum()),
        )


def measure_accuracy(data: ValidationData, results: Sequence[dict]) -> Accuracy:
    """Measures average precision.

    Args:
        data: With the ground truth.
        results: From :func:`mmdsym.report.predictions.predict`.
    """
    count = len(data.classes)
    true_boxes = np.array([len(_true_boxes(data, category)) for category in data.category_ids])
    if not results:
        # pycocotools cannot read an empty list.
        precision = np.where(true_boxes > 0, 0.0, np.nan) * np.ones((10, len(RECALLS), 1))
    else:
        evaluation = _evaluate(data, results)
        with quiet():
            evaluation.accumulate()
        # Axes: overlap, recall, class, area range, most detections an image.
        precision = evaluation.eval['precision'][:, :, :, 0, -1]
        precision = np.where(precision < 0, np.nan, precision)
    known = np.flatnonzero(true_boxes > 0)
    ap50 = np.full(count, np.nan)
    ap50[known] = precision[0][:, known].mean(axis=0)
    return Accuracy(
        map50=float(ap50[known].mean()) if len(known) else float('nan'),
        map=float(precision[:, :, known].mean()) if len(known) else float('nan'),
        ap50=ap50,
        precision=precision[0],
        true_boxes=true_boxes,
    )


def match_boxes(
    data: ValidationData, results: Sequence[dict], thresholds: Sequence[float]
) -> Matches:
    """Pairs detections with true boxes, and counts who was taken for whom.

    Args:
        data: With the ground truth.
        results: All detections.
        thresholds: Score of each class from which its boxes count, shape (num_classes,).
    """
    labels = {category: label for label, category in enumerate(data.category_ids)}
    chosen = [box for box in results if box['score'] >= thresholds[labels[box['category_id']]]]
    nothing = len(data.classes)
    confusion = np.zeros((nothing + 1, nothing + 1), dtype=int)
    right, false, missed = ({image: 0 for image in data.paths} for _ in range(3))
    for image, pairs in _pairs(data, chosen).items():
        for true, found in pairs:
            row = nothing if true is None else labels[true]
            column = nothing if found is None else labels[found]
            confusion[row, column] += 1
            right[image] += row == column
            false[image] += row != column and found is not None
            missed[image] += row != column and true is not None
    return Matches(confusion, right, false, missed)


def _pairs(
    data: ValidationData, chosen: Sequence[dict]
) -> dict[int, list[tuple[int | None, int | None]]]:
    """Image id to pairs of a true category and the one found; None where there is no other."""
    truths = {image: data.truth.load_anns(data.truth.get_ann_ids([image])) for image in data.paths}
    if not chosen:
        return {
            image: [(t['category_id'], None) for t in boxes if not t.get('iscrowd')]
            for image, boxes in truths.items()
        }
    evaluation = _evaluate(data, chosen, classes_apart=False)
    found = evaluation.cocoDt.anns
    pairs: dict[int, list[tuple[int | None, int | None]]] = {image: [] for image in data.paths}
    for judged in filter(None, evaluation.evalImgs):
        image = judged['image_id']
        # By true boxes: pycocotools marks a detection by the id of its true box, which may be 0.
        taken = {}
        for true, match, ignored in zip(
            judged['gtIds'], judged['gtMatches'][0], judged['gtIgnore'], strict=True
        ):
            if not ignored:
                taken[int(match)] = true
                if not match:
                    pairs[image].append((data.truth.anns[true]['category_id'], None))
        for box, ignored in zip(judged['dtIds'], judged['dtIgnore'][0], strict=True):
            if ignored:
                continue
            true = data.truth.anns[taken[box]]['category_id'] if box in taken else None
            pairs[image].append((true, found[box]['category_id']))
    return pairs


def _evaluate(
    data: ValidationData, results: Sequence[dict], classes_apart: bool = True
) -> COCOeval:
    with quiet():
        evaluation = COCOeval(data.truth, data.truth.loadRes(_copies(results)), 'bbox')
        evaluation.params.catIds = data.category_ids
        evaluation.params.imgIds = list(data.paths)
        evaluation.params.maxDets = list(_MAX_DETECTIONS)
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.areaRngLbl = ['all']
        if not classes_apart:
            evaluation.params.useCats = 0
            evaluation.params.iouThrs = np.array([_MATCH_IOU])
        evaluation.evaluate()
    return evaluation


def _copies(results: Sequence[dict]) -> list[dict]:
    # pycocotools writes into what it is given.
    return [dict(box) for box in results]


def _true_boxes(data: ValidationData, category: int) -> list[int]:
    truth: COCO = data.truth
    found = truth.get_ann_ids(img_ids=list(data.paths), cat_ids=[category])
    return [box for box in found if not truth.anns[box].get('iscrowd')]
