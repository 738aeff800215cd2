"""The simplest synthesiser."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdsym.diffusion import CopyPasteSynthesiser
from mmdsym.diffusion.synthesiser import CLEAN_SURFACE, PaintingTask, repaint_region
from mmdsym.errors import UserError
from mmdsym.registry import SYNTHESISERS


@st.composite
def tasks(draw) -> PaintingTask:
    """Any box on any image, down to one pixel and up to the whole image."""
    width, height = draw(st.integers(1, 50)), draw(st.integers(1, 50))
    box_width, box_height = draw(st.integers(1, width)), draw(st.integers(1, height))
    x, y = draw(st.floats(0, width - box_width)), draw(st.floats(0, height - box_height))
    generator = np.random.default_rng(draw(st.integers(0, 9)))
    reference = draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    grey = generator.integers(0, 256, (height, width, 1), dtype=np.uint8)
    return PaintingTask(
        image=grey.repeat(3, axis=2),
        box=(x, y, x + box_width, y + box_height),
        label=draw(st.sampled_from([CLEAN_SURFACE, 0])),
        seed=draw(st.integers(0, 9)),
        reference=generator.integers(0, 256, (*reference, 1), dtype=np.uint8).repeat(3, axis=2),
    )


@settings(max_examples=80)
@given(tasks())
def test_nothing_outside_of_the_region_changes(task):
    before = task.image.copy()
    (painted,) = CopyPasteSynthesiser().paint([task])
    assert painted.shape == task.image.shape and painted.dtype == np.uint8
    assert np.array_equal(task.image, before)
    outside = np.ones(task.image.shape[:2], dtype=bool)
    left, top, right, bottom = repaint_region(task.box, task.image.shape[1::-1])
    outside[top:bottom, left:right] = False
    assert np.array_equal(painted[outside], task.image[outside])
    assert (painted[..., 0] == painted[..., 1]).all()
    assert (painted[..., 0] == painted[..., 2]).all()


def surface(brightness: int) -> np.ndarray:
    return np.full((60, 60, 3), brightness, dtype=np.uint8)


def defect() -> np.ndarray:
    """A dark spot on a surface of brightness 100."""
    crop = np.full((11, 11, 3), 100, dtype=np.uint8)
    crop[3:8, 3:8] = 40
    return crop


def test_the_defect_lies_in_the_box_at_the_brightness_of_the_surface():
    task = PaintingTask(surface(180), (20, 20, 42, 42), 0, seed=0, reference=defect())
    (painted,) = CopyPasteSynthesiser(contrast=0).paint([task])
    assert painted[31, 31, 0] == pytest.approx(120, abs=3)
    # The seam is the surface on both sides.
    assert np.abs(painted[17:22, 17:45].astype(int) - 180).max() <= 2
    (unmatched,) = CopyPasteSynthesiser(match_brightness=False, contrast=0).paint([task])
    assert unmatched[31, 31, 0] == pytest.approx(40, abs=3)


def test_the_seam_rises_without_a_step():
    task = PaintingTask(surface(200), (10, 10, 50, 50), 0, seed=0, reference=surface(100))
    (painted,) = CopyPasteSynthesiser(match_brightness=False, contrast=0).paint([task])
    row = painted[30, :30, 0].astype(int)
    assert row[5] == 200 and row[15] == 100
    assert np.abs(np.diff(row)).max() <= 30


def test_seeds_tell_samples_apart_and_repeat_them():
    def paint(seed):
        task = PaintingTask(surface(180), (20, 20, 42, 42), 0, seed, reference=defect())
        return CopyPasteSynthesiser().paint([task])[0]

    assert np.array_equal(paint(1), paint(1))
    assert not np.array_equal(paint(1), paint(2))


def test_clean_surface_hides_a_defect():
    image = surface(150)
    image[20:40, 20:40] = 10
    task = PaintingTask(image, (18, 18, 42, 42), CLEAN_SURFACE, seed=0)
    (painted,) = CopyPasteSynthesiser().paint([task])
    assert (painted == 150).all()


def test_without_a_reference_it_says_so():
    with pytest.raises(UserError, match='can only paste'):
        CopyPasteSynthesiser().paint([PaintingTask(surface(0), (1, 1, 9, 9), 0, seed=0)])


def test_the_fingerprint_follows_the_settings():
    built = SYNTHESISERS.get('mmdsym.CopyPasteSynthesiser')
    assert built().fingerprint == CopyPasteSynthesiser().fingerprint
    assert built(contrast=0.2).fingerprint != built().fingerprint
    assert built(match_brightness=False).fingerprint != built().fingerprint
