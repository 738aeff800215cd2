import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmdet.structures.bbox import HorizontalBoxes

from mmdsym.diffusion.region_transform import CropDefectRegion
from mmdsym.diffusion.regions import (
    cut_window,
    paste_window,
    place_window,
    region_masks,
)
from mmdsym.diffusion.synthesiser import CLEAN_SURFACE, repaint_region
from mmdsym.errors import UserError


@st.composite
def boxes_in_images(draw):
    width, height = draw(st.integers(8, 150)), draw(st.integers(8, 150))
    x1, y1 = draw(st.floats(0, width - 1)), draw(st.floats(0, height - 1))
    x2, y2 = draw(st.floats(x1 + 1, width)), draw(st.floats(y1 + 1, height))
    return (x1, y1, x2, y2), (width, height)


@given(boxes_in_images(), st.floats(1, 4), st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_window_holds_all_that_may_change(placed, context, shift):
    box, size = placed
    window = place_window(box, size, context, min_side=16, shift=shift)
    left, top, right, bottom = repaint_region(box, size)
    assert window.left <= left and right <= window.left + window.side
    assert window.top <= top and bottom <= window.top + window.side
    for start, room in ((window.left, size[0]), (window.top, size[1])):
        assert window.side > room or (start >= 0 and start + window.side <= room)


@given(boxes_in_images())
def test_what_was_cut_out_can_be_put_back(placed):
    box, (width, height) = placed
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    window = place_window(box, (width, height), 1.5, min_side=16)
    piece = cut_window(image, window, window.side)
    assert np.array_equal(paste_window(image, piece, window), image)
    black = paste_window(image, np.zeros_like(piece), window)
    left, top = max(0, window.left), max(0, window.top)
    right, bottom = window.left + window.side, window.top + window.side
    assert not black[top:bottom, left:right].any()
    black[top:bottom, left:right] = image[top:bottom, left:right]
    assert np.array_equal(black, image)


@given(boxes_in_images())
def test_the_box_lies_inside_the_region_and_both_inside_the_image(placed):
    box, size = placed
    window = place_window(box, size, 1.5, min_side=16)
    region, inside = region_masks(box, size, window, window.side)
    assert inside.any()
    assert (region[inside > 0] > 0).all()
    expected = repaint_region(box, size)
    rows, columns = np.nonzero(region[..., 0])
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert found == tuple(np.subtract(expected, (window.left, window.top) * 2))


def results_with(boxes, size=40, labels=None, channels=1):
    boxes = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, channels), dtype=np.uint8)
    return dict(
        img=pixels.repeat(3 // channels, axis=2),
        img_path='surface.png',
        gt_bboxes=HorizontalBoxes(boxes),
        gt_ignore_flags=np.zeros(len(boxes), dtype=bool),
        gt_bboxes_labels=np.zeros(len(boxes), int) if labels is None else np.array(labels),
        sample_idx=7,
    )


@pytest.mark.parametrize(
    'box', [(10, 10, 11, 11), (0, 0, 40, 40), (5, 5, 30, 9), (-5, -5, 60, 60), (38, 38, 40, 40)]
)
def test_boxes_of_every_size_become_regions(box):
    example = CropDefectRegion(32, clean_share=0).transform(results_with([box]))
    assert example['label'] == 0
    assert example['image'].shape == (1, 32, 32)
    assert example['region'].max() == 255 and example['box'].max() > 0


def test_an_image_without_boxes_gives_clean_surface():
    example = CropDefectRegion(32, channels=3).transform(results_with([], channels=3))
    assert example['label'] == CLEAN_SURFACE
    assert example['image'].shape == (3, 32, 32)
    assert example['region'].max() == 255 and example['box'].max() == 0


def test_an_image_full_of_a_defect_has_no_clean_surface():
    transform = CropDefectRegion(32, clean_share=1)
    assert transform.transform(results_with([(0, 0, 40, 40)], labels=[3]))['label'] == 3


def test_clean_regions_have_the_declared_share():
    np.random.seed(0)
    transform = CropDefectRegion(16, clean_share=0.3)
    results = results_with([(2, 2, 10, 10)])
    labels = [transform.transform(results)['label'] for _ in range(400)]
    assert 0.2 < labels.count(CLEAN_SURFACE) / 400 < 0.4


def with_crowds(boxes, crowds):
    results = results_with([*boxes, *crowds], labels=[0] * len(boxes) + [5] * len(crowds))
    results['gt_ignore_flags'][len(boxes) :] = True
    return results


def test_crowds_are_learned_neither_as_defects_nor_as_clean_surface():
    np.random.seed(0)
    transform = CropDefectRegion(40, contexts=(4, 4), min_side=40, clean_share=0.5)
    results = with_crowds([(1, 1, 6, 6)], [(0, 8, 40, 40)])
    examples = [transform.transform(results) for _ in range(60)]
    assert {example['label'] for example in examples} == {0, CLEAN_SURFACE}
    results = with_crowds([], [(0, 10, 40, 40)])
    examples = [transform.transform(results) for _ in range(20)]
    assert {example['label'] for example in examples} == {CLEAN_SURFACE}
    # The window is the image; beyond the seam of 2 pixels the crowd is left alone.
    assert not any(example['region'][0, 12:].any() for example in examples)


def test_an_image_full_of_crowds_is_left_out_of_training_and_named_in_validation():
    results = with_crowds([], [(0, 0, 40, 40)])
    assert CropDefectRegion(16).transform(results) is None
    with pytest.raises(UserError, match='surface.png is filled by boxes marked as crowds'):
        CropDefectRegion(16, fixed=True).transform(results)


def test_for_validation_an_image_always_gives_the_same_region():
    transform = CropDefectRegion(16, fixed=True)
    results = results_with([(2, 2, 10, 10), (20, 20, 30, 36)])
    first, second = transform.transform(results), transform.transform(results)
    assert all(np.array_equal(first[key], second[key]) for key in first)


def test_images_are_handed_on_in_rgb():
    results = results_with([(10, 10, 20, 20)], channels=3)
    results['img'][..., 0] = 0  # blue, as OpenCV orders it
    example = CropDefectRegion(32, channels=3, fixed=True).transform(results)
    assert example['image'][2].max() == 0 and example['image'][0].max() > 0
