"""Blending: nothing changes outside, no border is seen, defects keep their contrast."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdsym.diffusion.blending import blend
from mmdsym.diffusion.synthesiser import repaint_region


@st.composite
def pictures(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, tuple, float]:
    width, height = draw(st.integers(4, 40)), draw(st.integers(4, 40))
    x1, y1 = draw(st.floats(0, width - 1)), draw(st.floats(0, height - 1))
    x2, y2 = draw(st.floats(x1 + 0.5, width)), draw(st.floats(y1 + 0.5, height))
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    image, painted = generator.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    return image, painted, (x1, y1, x2, y2), draw(st.sampled_from([0.0, 0.1, 0.5]))


@given(pictures())
def test_outside_of_the_region_not_one_pixel_changes(picture):
    image, painted, box, margin = picture
    before, size = image.copy(), image.shape[1::-1]
    result = blend(image, painted, box, margin)
    left, top, right, bottom = repaint_region(box, size, margin)
    outside = np.ones(image.shape[:2], bool)
    outside[top:bottom, left:right] = False
    assert result.dtype == np.uint8
    assert result.shape == image.shape
    assert np.array_equal(result[outside], image[outside])
    assert np.array_equal(image, before)


@given(pictures())
def test_inside_the_box_the_painting_counts_alone(picture):
    image, painted, box, margin = picture
    result = blend(image, painted, box, margin, match_brightness=False)
    x1, y1 = np.ceil(box[:2]).astype(int)
    x2, y2 = np.floor(box[2:]).astype(int)
    assert np.array_equal(result[y1:y2, x1:x2], painted[y1:y2, x1:x2])


@given(pictures())
def test_grey_stays_grey(picture):
    image, painted, box, margin = picture
    grey_image, grey_painted = (np.repeat(each[..., :1], 3, axis=2) for each in (image, painted))
    result = blend(grey_image, grey_painted, box, margin)
    assert (result == result[..., :1]).all()


def test_towards_the_border_of_the_image_nothing_fades():
    image = np.full((20, 30, 3), 50, np.uint8)
    painted = np.full((20, 30, 3), 200, np.uint8)
    result = blend(image, painted, (1, 0, 12, 20), match_brightness=False)
    assert (result[:, :12] == 200).all()
    assert (result[:, 14:] == 50).all()
    seam = result[10, 12:14, 0].astype(int)
    assert 200 > seam[0] > seam[1] > 50


def test_a_region_of_the_whole_image_is_taken_as_painted():
    image = np.zeros((8, 8, 3), np.uint8)
    painted = np.full((8, 8, 3), 90, np.uint8)
    assert np.array_equal(blend(image, painted, (0, 0, 8, 8)), painted)


@pytest.mark.parametrize(
    ('box', 'slope'),
    [((20, 16, 48, 44), 0.0), ((20, 16, 48, 44), 0.3), ((0, 10, 30, 40), 0.3), ((0, 0, 64, 20), 0)],
)
def test_a_step_in_brightness_disappears(box: tuple, slope: float):
    generator = np.random.default_rng(0)
    surface = 100 + np.arange(64)[None, :, None] * 0.5 + generator.normal(0, 3, (64, 64, 1))
    image = np.repeat(surface, 3, axis=2).round().astype(np.uint8)
    offset = 20 + slope * (np.arange(64)[:, None, None] - sum(box[1::2]) / 2)
    painted = (image + offset).round().astype(np.uint8)
    result = blend(image, painted, box)
    left = np.abs(result.astype(int) - image)
    assert left.max() <= 2
    plain = blend(image, painted, box, match_brightness=False).astype(int)
    assert np.abs(plain - image).max() >= 18


def test_a_defect_keeps_its_contrast():
    image = np.full((64, 64, 3), 120, np.uint8)
    painted = np.full((64, 64, 3), 140, np.uint8)
    painted[28:36, 28:36] = 80
    result = blend(image, painted, (20, 20, 44, 44))
    assert abs(int(result[32, 32, 0]) - int(result[24, 24, 0]) + 60) <= 1
    assert abs(int(result[24, 24, 0]) - 120) <= 1


def test_pixels_of_another_shape_are_refused():
    with pytest.raises(ValueError, match='cannot blend'):
        blend(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8), (1, 1, 4, 4))
