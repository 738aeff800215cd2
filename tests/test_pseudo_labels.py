"""Boxes are sorted by the thresholds of their class, and moved between views to the pixel."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.structures import InstanceData

from mmdsym.models.pseudo_labels import blank_out, project, select_pseudo_labels

SIZE = 200


def instances(boxes, scores=None, labels=None) -> InstanceData:
    count = len(boxes)
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor([1.0] * count if scores is None else scores),
        labels=torch.tensor([0] * count if labels is None else labels, dtype=torch.long),
    )


def flip_and_scale(scale: float, horizontal: bool, vertical: bool, dx: int, dy: int) -> np.ndarray:
    """Mirrors an image of SIZE pixels, scales it and crops its left and upper border."""
    mirror = np.diag([-1.0 if horizontal else 1.0, -1.0 if vertical else 1.0, 1.0])
    mirror[0, 2] = SIZE if horizontal else 0
    mirror[1, 2] = SIZE if vertical else 0
    crop = np.array([[1.0, 0, -dx], [0, 1, -dy], [0, 0, 1]])
    return (crop @ np.diag([scale, scale, 1.0]) @ mirror).astype(np.float32)


starts = st.integers(5, 120)
extents = st.integers(2, 70)
views = st.builds(
    flip_and_scale,
    st.floats(0.8, 1.3),
    st.booleans(),
    st.booleans(),
    st.integers(0, 3),
    st.integers(0, 3),
)


@given(starts, starts, extents, extents, views)
def test_there_and_back_again(x, y, width, height, view):
    """Boxes away from the border survive every mirror, scale and crop."""
    box = instances([[x, y, x + width, y + height]])
    # A frame large enough that clipping hides nothing.
    there = project(box, view, (400, 400))
    back = project(there, view, (SIZE, SIZE), inverse=True)
    torch.testing.assert_close(back.bboxes, box.bboxes, atol=1e-2, rtol=0)


def test_pixels_and_boxes_move_alike():
    """A marked rectangle and its box stay together through MMDetection's own transforms."""
    from conftest import REPOSITORY
    from mmcv.transforms import Compose
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from mmdsym.config import _fill

    init_default_scope('mmdet')
    base = Config.fromfile(REPOSITORY / 'configs/_base_/datasets/pipelines.py')
    steps = _fill(base._cfg_dict.to_dict(), dict(image_size=(224, 224)))['strong_view']
    kept = [s for s in steps if s['type'] not in ('RandomErasing', 'PhotoMetricDistortion')]
    pipeline = Compose([dict(type='LoadEmptyAnnotations', with_bbox=True), *kept])
    image = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
    image[60:110, 40:140] = 255
    box = instances([[40, 60, 140, 110]])
    seen = 0
    for seed in range(25):
        np.random.seed(seed)
        packed = pipeline(
            dict(img=image.copy(), img_shape=(SIZE, SIZE), ori_shape=(SIZE, SIZE), img_id=0,
                 img_path='none')
        )  # fmt: skip
        sample = packed['data_samples']
        moved = project(box, sample.homography_matrix, sample.img_shape).bboxes
        ys, xs = np.where(packed['inputs'][0].numpy() > 200)
        if not len(xs):
            continue
        found = torch.tensor([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]]).float()
        assert (moved - found).abs().max() <= 1.0
        seen += 1
    assert seen >= 20


def test_thresholds_of_the_class_decide():
    predictions = instances(
        [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]],
        [0.6, 0.6, 0.3, 0.1],
        [0, 1, 1, 1],
    )
    labels = select_pseudo_labels(predictions, torch.tensor([0.5, 0.7]), torch.tensor([0.2, 0.2]))
    assert labels.kept.labels.tolist() == [0]
    assert labels.uncertain.bboxes[:, 0].tolist() == [20, 40]
    assert labels.dropped.labels.tolist() == [1]


def test_uncertain_boxes_over_kept_ones_are_dropped():
    predictions = instances(
        [[20, 20, 60, 60], [0, 0, 100, 100], [25, 25, 40, 40], [150, 150, 180, 180]],
        [0.9, 0.4, 0.4, 0.4],
    )
    labels = select_pseudo_labels(predictions, torch.tensor([0.8]), torch.tensor([0.2]))
    assert labels.uncertain.bboxes.tolist() == [[150, 150, 180, 180]]
    assert labels.dropped.bboxes[:, 0].tolist() == [0, 25]


def test_no_prediction_at_all():
    labels = select_pseudo_labels(instances([]), torch.tensor([0.5, 0.5]), torch.zeros(2))
    assert len(labels.kept) == len(labels.uncertain) == 0
    assert len(project(labels.kept, np.eye(3, dtype=np.float32), (10, 10))) == 0


def test_boxes_that_leave_the_view_are_left_out():
    view = flip_and_scale(1.0, False, False, 3, 0)
    moved = project(instances([[0, 0, 3, 50], [100, 100, 150, 150]]), view, (SIZE, SIZE))
    assert moved.bboxes.tolist() == [[97, 100, 147, 150]]


def test_painting_over_spares_kept_boxes():
    image = torch.ones(3, 20, 20)
    blank_out(image, torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[5.0, 5, 15, 15]]))
    assert image[:, :5, :10].sum() == 0
    assert image[:, 5:10, :5].sum() == 0
    assert (image[:, 5:15, 5:15] == 1).all()
    assert image.sum() == 3 * (400 - 75)
