"""The image-level gate: what it looks at, and where it closes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmdsym.clip.image_gate import ImageGate
from mmdsym.errors import UserError

shares = st.lists(st.floats(0, 1), min_size=1, max_size=60)


@given(st.integers(1, 5), st.integers(4, 300), st.integers(4, 300))
def test_tiles_cover_the_image_once(tiles, width, height):
    windows = ImageGate(tiles=tiles).windows(width, height)
    assert windows[0].tolist() == [0, 0, width, height]
    areas = (windows[:, 2:] - windows[:, :2]).prod(dim=1)
    if tiles == 1:
        assert len(windows) == 1
    else:
        assert len(windows) == 1 + tiles**2
        assert areas[1:].sum() == pytest.approx(width * height, rel=1e-4)


@given(shares, st.floats(0.05, 1))
def test_a_calibrated_gate_lets_the_declared_share_pass(probabilities, share):
    gate = ImageGate(passed_share=share)
    gate.fit(probabilities)
    assert np.mean([gate.admits(p) for p in probabilities]) >= share - 1e-9


def test_a_given_threshold_stays():
    gate = ImageGate(threshold=0.3)
    gate.fit([0.9, 0.95])
    gate.load_state_dict({'threshold': 0.9})
    assert gate.admits(0.3) and not gate.admits(0.29)


def test_one_suspicious_tile_is_enough():
    gate = ImageGate(threshold=0.5, tiles=2)
    assert gate.defect_probability(torch.tensor([0.9, 0.9, 0.1, 0.9, 0.9])) == pytest.approx(0.9)


def test_without_calibration_images_all_pass():
    gate = ImageGate()
    gate.fit([])
    assert gate.admits(0.0)


def test_the_threshold_survives_a_resume():
    gate, other = ImageGate(), ImageGate()
    gate.fit([0.4, 0.6])
    other.load_state_dict(gate.state_dict())
    assert other.threshold == gate.threshold > 0


@pytest.mark.parametrize('wrong', [dict(threshold=2), dict(passed_share=0), dict(tiles=0)])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UserError):
        ImageGate(**wrong)
