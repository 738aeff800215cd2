"""The demo generator: exact boxes, the same data for the same seed, every class everywhere."""

import numpy as np
import pytest

from mmdsym.datasets.preparation.demo.generate import (
    CLASSES,
    MAX_OVERLAP,
    VISIBLE,
    make_image,
    open_demo,
)
from mmdsym.errors import UserError


@pytest.fixture(scope='module')
def images():
    return [make_image(index, size=128) for index in range(18)]


def test_boxes_are_tight_around_what_changed_visibly(images):
    for image in images:
        assert len(image.boxes) == len(image.stages) <= 3
        before = image.surface
        for box, after in zip(image.boxes, image.stages, strict=True):
            changed = np.abs(after.astype(int) - before.astype(int)) >= VISIBLE
            ys, xs = np.nonzero(changed)
            bounds = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            assert (box.x1, box.y1, box.x2, box.y2) == bounds
            before = after


def test_no_defect_hides_another(images):
    for image in images:
        for i, one in enumerate(image.boxes):
            for other in image.boxes[:i]:
                width = min(one.x2, other.x2) - max(one.x1, other.x1)
                height = min(one.y2, other.y2) - max(one.y1, other.y1)
                shared = max(width, 0) * max(height, 0)
                assert shared <= MAX_OVERLAP * min(one.area, other.area)


def test_outside_all_boxes_the_surface_is_as_good_as_untouched(images):
    for image in images:
        changed = np.abs(image.pixels.astype(int) - image.surface) >= VISIBLE * max(
            len(image.boxes), 1
        )
        for box in image.boxes:
            changed[int(box.y1) : int(box.y2), int(box.x1) : int(box.x2)] = False
        assert not changed.any()


def test_images_are_grey_and_vary(images):
    for image in images:
        assert image.pixels.shape == (128, 128)
        assert image.pixels.dtype == np.uint8
        assert image.surface.std() > 1
    assert len({image.pixels.tobytes() for image in images}) == len(images)
    assert {box.label for image in images for box in image.boxes} == set(CLASSES)


def test_same_seed_same_image():
    one, same, other = make_image(3, 0, 96), make_image(3, 0, 96), make_image(3, 1, 96)
    assert np.array_equal(one.pixels, same.pixels)
    assert one.boxes == same.boxes
    assert not np.array_equal(one.pixels, other.pixels)


def test_demo_source_has_every_class_in_both_splits(tmp_path):
    with open_demo(60, tmp_path, size=64) as source:
        splits = {'train': source.in_split('train'), 'val': source.in_split('val')}
        assert {split: len(images) for split, images in splits.items()} == {'train': 48, 'val': 12}
        for images in splits.values():
            assert {label for image in images for label in image.labels} == set(CLASSES)
            assert all(image.path.is_file() for image in images)
    assert not list(tmp_path.iterdir())


def test_too_small_a_demo_is_refused(tmp_path):
    with pytest.raises(UserError, match='at least 60'), open_demo(10, tmp_path):
        pass
