"""What is foreign, and what the veto against it may cost."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from mmdsym.clip import ForeignVeto
from mmdsym.clip.foreign_veto import nearest_likeness
from mmdsym.errors import UserError


def first_column(features, labels):
    return features[:, 0]


def boxes(*levels):
    return torch.tensor(levels)[:, None], torch.zeros(len(levels), dtype=torch.long)


def rejects(veto, features, labels):
    (answer,) = veto.rejects([features], [labels])
    return answer


@given(
    levels=st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=4), min_size=20, max_size=40),
    cost=st.floats(0.01, 0.5),
)
def test_it_costs_no_more_than_it_may(levels, cost):
    veto = ForeignVeto([first_column], cost)
    images = [boxes(*of_image) for of_image in levels]
    right = [len(of_image) for of_image in levels]
    veto.fit([f for f, _ in images], [n for _, n in images], right)
    lost = sum(n for image, n in zip(images, right, strict=True) if rejects(veto, *image))
    assert lost <= cost * sum(right)


images = st.lists(
    st.tuples(
        # Few values, so that many are alike; of two measures.
        st.lists(
            st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1, width=32)), max_size=3
        ),
        st.integers(0, 4),
    ),
    max_size=40,
)


@given(images, st.sampled_from([0.0, 0.01, 0.02, 0.05, 0.3, 0.99]), st.integers(1, 3))
def test_right_boxes_are_never_lost_beyond_the_limit(images, cost, classes):
    """With few images or many, equal ones, images that CLIP was not shown, and one class."""
    measures = [first_column, lambda features, labels: features[:, 1]]
    veto = ForeignVeto(measures, cost, min_images=1)
    shown = [
        (torch.tensor(rows).reshape(-1, 2), torch.arange(len(rows)) % classes) for rows, _ in images
    ]
    right = [count for _, count in images]
    veto.fit([f for f, _ in shown], [n for _, n in shown], right)
    lost = sum(count for image, count in zip(shown, right, strict=True) if rejects(veto, *image))
    assert lost <= cost * sum(right)
    strict = ForeignVeto(measures, cost)
    strict.fit([f for f, _ in shown], [n for _, n in shown], right)
    useful = [count for (_, labels), count in zip(shown, right, strict=True) if count * len(labels)]
    if len(useful) < 20 or sum(useful) < 20:
        assert not any(rejects(strict, *image) for image in shown)
        assert bool(cost) == (f'on {len(useful)} calibration images' in strict.reason)
    else:
        assert not strict.reason


def test_a_measure_that_is_no_number_turns_nothing_down():
    veto = ForeignVeto([first_column], 0.1)
    calibration = [boxes(float('nan'))] + [boxes(0.5)] * 30
    veto.fit([f for f, _ in calibration], [n for _, n in calibration], [1] * 31)
    assert not rejects(veto, *calibration[0]) and not rejects(veto, *boxes(0.5))


def test_an_image_is_judged_by_its_most_familiar_box():
    veto = ForeignVeto([first_column], 0.1)
    calibration = [boxes(0.5 + index / 100) for index in range(40)]
    veto.fit([f for f, _ in calibration], [n for _, n in calibration], [1] * 40)
    assert veto.counts and 0.5 <= veto.limits[0] < 0.56
    assert rejects(veto, *boxes(0.1, 0.2, 0.3))
    assert not rejects(veto, *boxes(0.1, 0.9))
    assert not rejects(veto, torch.zeros(0, 1), torch.zeros(0, dtype=torch.long))


def test_an_image_is_foreign_only_if_all_measures_say_so():
    veto = ForeignVeto([first_column, lambda features, labels: features[:, 1]], 0.05)
    features = torch.rand(60, 2, generator=torch.manual_seed(0))
    labels = torch.zeros(1, dtype=torch.long)
    veto.fit([row[None] for row in features], [labels] * 60, [1] * 60)
    limits = torch.from_numpy(veto.limits).float()
    below, above = limits - 0.01, limits + 0.01
    assert rejects(veto, below[None], labels)
    for mixed in (torch.stack([below[0], above[1]]), torch.stack([above[0], below[1]])):
        assert not rejects(veto, mixed[None], labels)
    # Limits that only few reach together may lie higher than either could alone.
    assert (veto.limits > np.quantile(features.numpy(), 0.05, axis=0)).any()


def test_without_leave_or_boxes_nothing_is_turned_down():
    few = [boxes(0.9) for _ in range(5)]
    free, strict = ForeignVeto([first_column], 0.0), ForeignVeto([first_column])
    for veto, images in ((free, few * 8), (strict, few)):
        veto.fit([f for f, _ in images], [n for _, n in images], [1] * len(images))
        assert not veto.counts and not rejects(veto, *boxes(0.0))
        assert (veto.limits == -np.inf).all()
    with pytest.raises(UserError, match='cannot cost 1.0'):
        ForeignVeto([first_column], 1.0)


def test_likeness_is_that_of_the_nearest_crops_of_the_class():
    rng = np.random.default_rng(0)
    known = normalize(torch.from_numpy(rng.normal(size=(7, 4))).float(), dim=1)
    known_labels = torch.tensor([0, 0, 0, 0, 1, 1, 3])
    features = torch.cat([known[:1], known[:1], known[6:], known[:1]])
    found = nearest_likeness(features, torch.tensor([0, 1, 3, 2]), known, known_labels)
    cosines = known[0] @ known.T
    assert found[0] == pytest.approx(float(cosines[:4].topk(3).values.mean()))
    assert found[1] == pytest.approx(float(cosines[4:6].mean()), abs=1e-6)
    assert found[2] == pytest.approx(1.0), 'the only crop of its class is compared alone'
    assert found[3] == 1.0, 'nothing is known of this class'


@given(images=st.lists(st.lists(st.floats(0, 1, width=32), max_size=4), max_size=6))
def test_images_are_judged_alike_together_and_alone(images):
    veto = ForeignVeto([first_column, lambda features, labels: -features[:, 0]])
    veto.limits = np.array([0.5, -0.25])
    shown = [boxes(*levels) for levels in images]
    together = veto.rejects([features for features, _ in shown], [n for _, n in shown])
    assert together == [rejects(veto, *boxes(*levels)) for levels in images]
    assert not any(answer for answer, levels in zip(together, images, strict=True) if not levels)
