"""Pseudo-label quality agrees with COCO's evaluation, and is written whole."""

import csv
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdsym.errors import UserError
from mmdsym.evaluation import (
    JudgedDetections,
    PrecisionRecallCurve,
    PseudoLabelMetric,
    ScoredBoxes,
    TrueBoxes,
    measure_quality,
    write_report,
)

CLASSES = ('dent', 'spot')
seeds = st.integers(0, 2**32 - 1)


def random_images(seed: int, images: int = 4) -> tuple[list[ScoredBoxes], list[TrueBoxes]]:
    """Boxes that partly lie on true ones, with two scores."""
    rng = np.random.default_rng(seed)
    found, truth = [], []
    for _ in range(images):
        count = int(rng.integers(0, 4))
        corner = rng.integers(0, 60, (count, 2))
        boxes = np.concatenate([corner, corner + rng.integers(10, 40, (count, 2))], axis=1)
        labels = rng.integers(0, 2, count)
        ignored = rng.random(count) < 0.2
        many = rng.integers(0, count, 6) if count else np.zeros(0, dtype=int)
        moved = boxes[many] + rng.integers(-6, 7, (len(many), 4))
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        scores = {name: torch.rand(len(many)) for name in ('teacher', 'fused')}
        for values in scores.values():
            values.copy_(torch.from_numpy(rng.permutation(len(many)) / 7))
        found.append(
            ScoredBoxes(torch.from_numpy(moved).float(), torch.from_numpy(labels[many]), scores)
        )
        truth.append(
            TrueBoxes(
                torch.from_numpy(boxes).float(),
                torch.from_numpy(labels),
                torch.from_numpy(ignored),
            )
        )
    return found, truth


def coco_documents(found, truth, score) -> tuple[dict, list[dict]]:
    annotations, results = [], []
    for index, (image, true) in enumerate(zip(found, truth, strict=True)):
        for box, label, ignored in zip(true.boxes, true.labels, true.ignored, strict=True):
            x1, y1, x2, y2 = box.tolist()
            annotations.append(
                dict(id=len(annotations) + 1, image_id=index, category_id=int(label),
                     bbox=[x1, y1, x2 - x1, y2 - y1], area=(x2 - x1) * (y2 - y1),
                     iscrowd=int(ignored))
            )  # fmt: skip
        for box, label, value in zip(image.boxes, image.labels, image.scores[score], strict=True):
            x1, y1, x2, y2 = box.tolist()
            results.append(
                dict(image_id=index, category_id=int(label), score=float(value),
                     bbox=[x1, y1, x2 - x1, y2 - y1])
            )  # fmt: skip
    categories = [dict(id=index, name=name) for index, name in enumerate(CLASSES)]
    images = [dict(id=index, file_name=f'{index}.png') for index in range(len(found))]
    return dict(images=images, annotations=annotations, categories=categories), results


@settings(max_examples=25)
@given(seeds)
def test_average_precision_is_cocos(seed):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found, truth = random_images(seed)
    document, results = coco_documents(found, truth, 'fused')
    quality = measure_quality(found, truth, CLASSES, ['teacher', 'fused'])
    if not results:
        return
    coco = COCO()
    coco.dataset = document
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(results), 'bbox')
    evaluation.params.iouThrs = np.array([0.5])
    evaluation.evaluate()
    evaluation.accumulate()
    for label, name in enumerate(CLASSES):
        expected = evaluation.eval['precision'][0, :, label, 0, -1]
        mine = quality.row('fused', name).average_precision
        if (expected < 0).all():
            assert np.isnan(mine)
        else:
            assert mine == pytest.approx(expected.mean(), abs=1e-9)


def test_precision_at_the_recall_of_another_score():
    judged = JudgedDetections(
        np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.zeros(5, int), np.array([1, 0, 1, 1, 0], bool)
    )
    curve = PrecisionRecallCurve.of(judged, true_boxes=4)
    assert curve.recall_at(0.75) == 0.75
    assert curve.recall_at(0.9) == 0.25
    assert curve.recall_at(1.1) == 0.0
    assert curve.precision_at(0.5) == 0.75
    assert curve.precision_at(1.0) == 0.0


def test_a_better_score_is_seen_to_be_better():
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    truth = TrueBoxes(boxes[:1], torch.tensor([0]), torch.tensor([False]))
    found = ScoredBoxes(
        boxes,
        torch.tensor([0, 0]),
        {'teacher': torch.tensor([0.4, 0.6]), 'fused': torch.tensor([0.6, 0.4])},
    )
    quality = measure_quality([found], [truth], CLASSES, ['teacher', 'fused'])
    assert quality.row('teacher').average_precision == 0.5
    assert quality.row('fused').average_precision == 1.0
    assert quality.row('fused').recall_at_precision == 1.0
    assert np.isnan(quality.row('fused', 'spot').average_precision)


@pytest.fixture
def truth_file(tmp_path):
    found, truth = random_images(3)
    path = tmp_path / 'train.json'
    path.write_text(json.dumps(coco_documents(found, truth, 'fused')[0]))
    return path, found, truth


def as_results(found):
    return [
        dict(
            img_id=index,
            pred_instances=dict(
                bboxes=image.boxes, labels=image.labels,
                teacher_scores=image.scores['teacher'], scores=image.scores['fused'],
            ),
        )
        for index, image in enumerate(found)
    ]  # fmt: skip


def test_the_metric_measures_and_writes(truth_file, tmp_path):
    path, found, truth = truth_file
    fields = dict(teacher='teacher_scores', fused='scores')
    metric = PseudoLabelMetric(str(path), fields, out=str(tmp_path / 'out'))
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process({}, as_results(found))
    measured = metric.evaluate(size=len(found))
    expected = measure_quality(found, truth, CLASSES, list(fields))
    for score in fields:
        value = measured[f'pseudo_labels/{score}/AP50']
        assert value == pytest.approx(expected.row(score).average_precision)
    rows = list(csv.DictReader((tmp_path / 'out/pseudo_labels.csv').open()))
    assert len(rows) == 2 * (len(CLASSES) + 1)
    content = json.loads((tmp_path / 'out/pseudo_labels.json').read_text())
    assert content['reference'] == 'teacher'
    assert '| all | fused |' in (tmp_path / 'out/pseudo_labels.md').read_text()
    assert (tmp_path / 'out/pseudo_labels.png').read_bytes().startswith(b'\x89PNG')
    assert not list((tmp_path / 'out').glob('.*'))


def test_faults_are_named(truth_file, tmp_path):
    path, found, _ = truth_file
    with pytest.raises(UserError, match='truth file .*none.json does not exist'):
        PseudoLabelMetric(str(tmp_path / 'none.json'))
    metric = PseudoLabelMetric(str(path), dict(clip='clip_scores'))
    with pytest.raises(UserError, match="no 'clip_scores'"):
        metric.process({}, as_results(found))
    metric = PseudoLabelMetric(str(path))
    metric.dataset_meta = dict(classes=('rust', 'spot'))
    metric.process({}, as_results(found))
    with pytest.raises(UserError, match="the detector .*'rust'"):
        metric.evaluate(size=len(found))
    metric = PseudoLabelMetric(str(path))
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process({}, [dict(as_results(found)[0], img_id=99)])
    with pytest.raises(UserError, match='does not list image id 99'):
        metric.evaluate(size=1)


def test_no_box_at_all(tmp_path):
    empty = ScoredBoxes(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), dict(t=torch.zeros(0)))
    quality = measure_quality([empty], [TrueBoxes.none()], CLASSES, ['t'])
    assert quality.row('t').found_boxes == 0
    assert write_report(quality, tmp_path)[0].is_file()
