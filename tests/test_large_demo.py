"""Large demo images: tiny defects with exact boxes, the same for the same seed."""

import numpy as np
import pytest

from mmdsym.datasets.preparation.demo.generate import VISIBLE
from mmdsym.datasets.preparation.demo.large import (
    PAINTERS,
    PATCH,
    make_large_image,
    open_large_demo,
)
from mmdsym.errors import UserError

SIZE = (900, 600)


@pytest.fixture(scope='module')
def images():
    return [make_large_image(index, size=SIZE) for index in range(12)]


def test_images_are_grey_and_differ(images):
    for pixels, boxes in images:
        assert pixels.shape == (600, 900)
        assert pixels.dtype == np.uint8
        assert boxes
    assert len({pixels.tobytes() for pixels, _ in images}) == len(images)
    assert {box.label for _, boxes in images for box in boxes} == set(PAINTERS)


def test_defects_are_about_ten_pixels_and_apart():
    sides = []
    for index in range(4):
        _, boxes = make_large_image(index, size=(1500, 1000))
        sides += [side for box in boxes for side in (box.width, box.height)]
        for i, one in enumerate(boxes):
            for other in boxes[:i]:
                gap = max(abs(one.x1 - other.x1), abs(one.y1 - other.y1))
                assert gap > PATCH
    assert 8 <= np.mean(sides) <= 12
    assert 5 <= min(sides) <= max(sides) <= 16


def test_boxes_are_tight_around_what_stands_out(monkeypatch):
    from mmdsym.datasets.preparation.demo import large

    added = []
    add = large._add_defect

    def recorded(rng, pixels, boxes, kind):
        before, known = pixels.copy(), len(boxes)
        add(rng, pixels, boxes, kind)
        if len(boxes) > known:
            added.append((before, pixels.copy(), boxes[-1]))

    monkeypatch.setattr(large, '_add_defect', recorded)
    make_large_image(0, size=SIZE)
    assert added
    for before, after, box in added:
        rows, columns = np.nonzero(np.abs(after.astype(int) - before) >= VISIBLE)
        bounds = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert (box.x1, box.y1, box.x2, box.y2) == bounds


def test_the_same_seed_gives_the_same_image():
    one, same, other = (make_large_image(2, seed, SIZE) for seed in (0, 0, 1))
    assert np.array_equal(one[0], same[0]) and one[1] == same[1]
    assert not np.array_equal(one[0], other[0])


def test_the_source_holds_a_fifth_back(tmp_path, monkeypatch):
    from mmdsym.datasets.preparation.demo import large

    made = make_large_image
    monkeypatch.setattr(large, 'make_large_image', lambda index, seed: made(index, seed, SIZE))
    with open_large_demo(10, tmp_path) as source:
        assert len(source.in_split('train')) == 8
        assert len(source.in_split('val')) == 2
        assert all(image.path.is_file() for image in source.images)
    assert not list(tmp_path.iterdir())


def test_too_few_images_are_refused(tmp_path):
    with pytest.raises(UserError, match='at least 5'), open_large_demo(4, tmp_path):
        pass
