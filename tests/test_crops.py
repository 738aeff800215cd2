import numpy as np
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from mmdsym.crops import crop_by_roi_align, crop_windows, square_windows
from mmdsym.free_space import covered_share, find_free_box

SIDES = st.floats(1, 60)


def test_windows_are_squares_around_their_boxes():
    boxes = torch.tensor([[10.0, 20.0, 30.0, 25.0], [0.0, 0.0, 2.0, 2.0]])
    windows = square_windows(boxes, context=1.5, min_side=8)
    assert torch.equal(windows[0], torch.tensor([5.0, 7.5, 35.0, 37.5]))
    assert torch.equal(windows[1], torch.tensor([-3.0, -3.0, 5.0, 5.0]))


def test_a_window_of_the_crops_size_is_cut_out_unchanged():
    image = torch.rand(3, 40, 50)
    crop = crop_windows(image, torch.tensor([[7.0, 9.0, 23.0, 25.0]]), 16)
    assert torch.allclose(crop[0], image[:, 9:25, 7:23], atol=1e-5)


def test_edges_go_on_beyond_the_border():
    image = torch.full((1, 20, 20), 0.5)
    crop = crop_windows(image, torch.tensor([[-30.0, -5.0, 10.0, 35.0]]), 8)
    assert torch.allclose(crop, torch.full((1, 1, 8, 8), 0.5), atol=1e-6)


@given(
    st.tuples(st.floats(-90, 90), st.floats(-90, 90), st.floats(1, 150), st.floats(1, 150)),
    st.sampled_from([1, 7, 32]),
)
def test_both_ways_of_cropping_agree(window, size):
    left, top, width, height = window
    # Where the number of samples changes, rounding decides.
    assume(all(abs(side / size - round(side / size)) > 1e-3 for side in (width, height, 9.3)))
    image = torch.rand(3, 41, 57, generator=torch.Generator().manual_seed(0))
    windows = torch.tensor([[left, top, left + width, top + height], [0.0, 0, 9.3, 9.3]])
    expected = crop_by_roi_align(image, windows, size)
    torch.testing.assert_close(crop_windows(image, windows, size), expected, rtol=0, atol=2e-4)


def test_mixed_precision_leaves_crops_alone():
    image, windows = 255 * torch.rand(1, 40, 40), torch.tensor([[3.0, 4.0, 33.0, 30.0]])
    expected = crop_windows(image, windows, 16)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(crop_windows(image, windows, 16), expected)


def test_no_windows_give_no_crops():
    assert crop_windows(torch.rand(3, 9, 9), torch.zeros(0, 4), 8).shape == (0, 3, 8, 8)


@given(SIDES, SIDES, st.integers(0, 2**32 - 1))
def test_a_free_box_keeps_its_size_and_its_distance(width, height, seed):
    taken = np.array([[20.0, 20.0, 40.0, 45.0]])
    generator = np.random.default_rng(seed)
    box = find_free_box(generator, (64, 50), (width, height), taken)
    if box is None:
        return
    assert np.allclose(box[2:] - box[:2], (width, height))
    assert (box[:2] >= 0).all() and box[2] <= 64 + 1e-6 and box[3] <= 50 + 1e-6
    assert covered_share(box, taken) == 0


def test_what_does_not_fit_is_not_placed():
    assert find_free_box(np.random.default_rng(0), (30, 30), (31, 5), []) is None
    assert find_free_box(np.random.default_rng(0), (30, 30), (20, 20), [(0, 0, 30, 30)]) is None
