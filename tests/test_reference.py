"""A defect becomes the start of a new one: its surface stays behind, its grain comes along."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdsym.diffusion.labelled_images import LabelledImage, LabelledImages, Reference
from mmdsym.diffusion.reference import with_detail, with_reference
from mmdsym.diffusion.synthesiser import PaintingTask, repaint_region


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def reference_on(surface: int, defect: int, size=(20, 20), seam=(3, 3)) -> np.ndarray:
    columns, rows = size[0] + 2 * seam[0], size[1] + 2 * seam[1]
    pixels = np.full((rows, columns), surface)
    pixels[seam[1] : rows - seam[1], seam[0] : columns - seam[0]] = defect
    return grey(pixels)


@given(st.tuples(st.floats(0, 70), st.floats(0, 50)), st.floats(2, 30), st.floats(2, 30))
def test_only_the_region_to_repaint_changes(corner, width, height):
    image = grey(np.random.default_rng(0).integers(0, 256, (80, 100)))
    box = (*corner, min(100.0, corner[0] + width), min(80.0, corner[1] + height))
    reference = reference_on(200, 90)
    changed = with_reference(PaintingTask(image, box, 0, 0, reference, 0.5, seam=(3, 3)))
    left, top, right, bottom = repaint_region(box, (100, 80))
    changed[top:bottom, left:right] = image[top:bottom, left:right]
    assert np.array_equal(changed, image)


def test_a_defect_darker_than_its_surface_stays_so_on_a_darker_one():
    image = grey(np.full((80, 100), 90))
    task = PaintingTask(image, (30, 30, 60, 60), 0, 0, reference_on(200, 160), 0.5, seam=(3, 3))
    inside = with_reference(task)[35:55, 35:55]
    assert inside.mean() == pytest.approx(90 - 40, abs=5)


def test_without_a_seam_brightness_is_that_of_the_reference():
    image = grey(np.full((80, 100), 90))
    task = PaintingTask(image, (30, 30, 60, 60), 0, 0, grey(np.full((20, 20), 160)), 0.5)
    assert (with_reference(task)[30:60, 30:60] == 160).all()


def test_coarse_structure_is_the_painted_one_and_fine_structure_that_of_the_start():
    generator = np.random.default_rng(0)
    start = grey(np.full((64, 64), 100) + generator.integers(-20, 21, (64, 64)))
    slope = np.linspace(0, 60, 64)[None].repeat(64, axis=0)
    painted = grey(np.full((64, 64), 100) + slope + generator.integers(-20, 21, (64, 64)))
    result = with_detail(painted, start, scale=4).astype(float)

    def coarse(image):
        return cv2.GaussianBlur(image, (0, 0), 4)[12:-12, 12:-12]

    assert np.abs(coarse(result) - coarse(painted.astype(float))).max() < 4
    fine = result[12:-12, 12:-12] - coarse(result)
    own = start[12:-12, 12:-12] - coarse(start.astype(float))
    assert np.corrcoef(fine.ravel(), own.ravel())[0, 1] > 0.95


class OneImage(LabelledImages):
    """An image whose grey levels tell column and row."""

    def pixels(self, index: int) -> np.ndarray:
        rows, columns = np.mgrid[:40, :60]
        return np.stack([columns, rows, np.zeros_like(rows)], axis=2).astype(np.uint8)


@pytest.fixture
def images() -> LabelledImages:
    none = np.zeros((0, 4)), np.zeros(0, dtype=int), np.zeros(0, dtype=bool)
    return OneImage([LabelledImage('none.png', (60, 40), *none)], ('dent',))


@pytest.mark.parametrize('transposed', [False, True])
@pytest.mark.parametrize('mirrored', [(False, False), (True, False), (True, True)])
def test_the_seam_shows_what_lies_around_the_defect(images, mirrored, transposed):
    reference = Reference(0, (20, 10, 40, 20), mirrored, transposed)
    wanted = (0.2, 0.1) if transposed else (0.1, 0.2)
    crop, seam = images.crop(reference, wanted)
    assert seam == (2, 2)
    bare, none = images.crop(reference)
    assert none == (0, 0)
    assert np.array_equal(crop[2:-2, 2:-2], bare)
    assert (crop[..., 0].min(), crop[..., 0].max()) == (18, 41)
    assert (crop[..., 1].min(), crop[..., 1].max()) == (8, 21)


def test_beyond_the_border_the_surface_is_mirrored(images):
    crop, seam = images.crop(Reference(0, (0, 0, 60, 40)), (0.1, 0.1))
    assert seam == (6, 4)
    assert crop.shape == (48, 72, 3)
    assert np.array_equal(crop[:, 5], crop[:, 7])
