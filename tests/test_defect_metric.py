"""AP@0.5 of each class, also where nothing was found or nothing is there."""

import json
import math

import pytest
import torch

from mmdsym.evaluation import DefectMetric

CLASSES = ('dent', 'spot', 'crack')


@pytest.fixture
def measure(tmp_path):
    """Returns a function that measures boxes (label, corners, score) on one image."""

    def call(truth: list[tuple[int, list[float]]], *found: tuple) -> dict[str, float]:
        content = dict(
            images=[dict(id=0, file_name='0.png', width=64, height=64)],
            categories=[dict(id=i, name=name) for i, name in enumerate(CLASSES)],
            annotations=[
                dict(id=i, image_id=0, category_id=label, bbox=box, area=100, iscrowd=0)
                for i, (label, box) in enumerate(truth, start=1)
            ],
        )
        path = tmp_path / 'truth.json'
        path.write_text(json.dumps(content))
        metric = DefectMetric(ann_file=str(path), metric='bbox')
        metric.dataset_meta = dict(classes=CLASSES)
        instances = dict(
            bboxes=torch.tensor([box for _, box, _ in found]).reshape(-1, 4),
            scores=torch.tensor([score for _, _, score in found]),
            labels=torch.tensor([label for label, _, _ in found], dtype=torch.long),
        )
        metric.process({}, [dict(pred_instances=instances, img_id=0, ori_shape=(64, 64))])
        return metric.evaluate(1)

    return call


TRUTH = [(0, [0, 0, 10, 10]), (1, [30, 30, 10, 10])]


def test_each_class_has_its_precision_and_a_class_without_boxes_none(measure):
    metrics = measure(TRUTH, (0, [0.0, 0.0, 10.0, 10.0], 0.9), (0, [40.0, 0.0, 50.0, 10.0], 0.5))
    assert metrics['coco/AP50/dent'] == pytest.approx(1)
    assert metrics['coco/AP50/spot'] == 0
    assert math.isnan(metrics['coco/AP50/crack'])
    assert metrics['coco/bbox_mAP_50'] == pytest.approx(0.5)


def test_nothing_found_is_nothing_right(measure):
    metrics = measure(TRUTH)
    assert metrics['coco/bbox_mAP'] == metrics['coco/bbox_mAP_50'] == 0
    assert metrics['coco/AP50/dent'] == metrics['coco/AP50/spot'] == 0
    assert math.isnan(metrics['coco/AP50/crack'])
    assert measure([])['coco/bbox_mAP_50'] == -1, "MMDetection's word for no true box at all"
