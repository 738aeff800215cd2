"""Choices of images are disjoint, complete, stratified, stable and nested."""

from collections import Counter
from pathlib import Path
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from mmdsym.datasets.preparation import splitting
from mmdsym.datasets.preparation.merging.subsets import extend_subsets
from mmdsym.datasets.preparation.prepare import Choices, choose_subsets, remarks_on
from mmdsym.datasets.preparation.records import Box, Source, SourceImage
from mmdsym.datasets.preparation.splitting import choose_labelled, hold_out

CLASSES = ['a', 'b', 'c', 'd']


def image(number: int, labels: set[str]) -> SourceImage:
    name = f'part{number}.png'
    boxes = [Box(0, 0, 1, 1, label) for label in sorted(labels)]
    return SourceImage(Path(name), name, boxes, split='train')


image_lists = st.lists(st.sets(st.sampled_from(CLASSES), max_size=3), min_size=1, max_size=60).map(
    lambda found: [image(i, labels) for i, labels in enumerate(found)]
)
seeds = st.integers(0, 1000)


def names(images) -> set[str]:
    return {i.name for i in images}


def per_class(images) -> Counter:
    return Counter(label for i in images for label in i.labels)


@given(image_lists, seeds, st.floats(0.01, 1), st.floats(0.01, 1))
@settings(max_examples=50, deadline=None)
def test_labelled_images_are_nested_and_miss_no_class(images, seed, one, other):
    small, large = sorted((one, other))
    few, many = choose_labelled(images, small, seed), choose_labelled(images, large, seed)
    assert names(few) <= names(many)
    assert len(names(few)) == len(few)
    assert set(per_class(few)) == set(per_class(images))
    wanted = round(small * len(images))
    assert wanted <= len(few) <= max(wanted, len(CLASSES))
    assert names(choose_labelled(images, 1.0, seed)) == names(images)


@given(image_lists, seeds, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_order_of_listing_changes_nothing(images, seed, random):
    shuffled = list(images)
    random.shuffle(shuffled)
    labelled = choose_labelled(images, 0.4, seed)
    assert labelled == choose_labelled(shuffled, 0.4, seed)
    calibration = hold_out(labelled, 0.15, seed, 'calibration')
    assert names(calibration) == names(hold_out(labelled[::-1], 0.15, seed, 'calibration'))


@given(image_lists, seeds, st.floats(0.05, 0.5))
@settings(max_examples=50, deadline=None)
def test_calibration_shows_every_class_that_can_spare_an_image(images, seed, fraction):
    calibration = hold_out(images, fraction, seed, 'calibration')
    counts = per_class(images)
    assert len(names(calibration)) == len(calibration)
    assert names(calibration) <= names(images)
    assert {label for label in counts if counts[label] >= 2} <= set(per_class(calibration))
    assert len(calibration) <= max(round(fraction * len(images)), len(CLASSES))


@given(st.integers(2, 30), st.integers(2, 30), seeds)
@settings(max_examples=30, deadline=None)
def test_burn_in_keeps_every_class_of_single_class_images(many, few, seed):
    images = [image(i, {'a'}) for i in range(many)] + [image(100 + i, {'b'}) for i in range(few)]
    calibration = names(hold_out(images, 0.15, seed, 'calibration'))
    rest = [i for i in images if i.name not in calibration]
    assert set(per_class(rest)) == {'a', 'b'}


@given(st.integers(10, 40), st.integers(10, 40), seeds, st.sampled_from([0.2, 0.4, 0.5]))
@settings(max_examples=40, deadline=None)
def test_shares_hold_within_each_class(many, few, seed, fraction):
    images = [image(i, {'a'}) for i in range(many)] + [image(100 + i, {'b'}) for i in range(few)]
    counts = per_class(choose_labelled(images, fraction, seed))
    assert abs(counts['a'] - fraction * many) <= 1.5
    assert abs(counts['b'] - fraction * few) <= 1.5


def test_choices_are_frozen():
    """Published numbers rest on these choices: another version may not make others."""
    images = [image(i, {CLASSES[i % 4]}) for i in range(40)]
    chosen = {i.path.stem for i in choose_labelled(images, 0.2, seed=0)}
    assert chosen == FROZEN_CHOICE
    assert chosen != {i.path.stem for i in choose_labelled(images, 0.2, seed=1)}


def test_held_out_images_are_frozen():
    """Likewise, and whether the pixels are known or not, as long as no two images share them."""
    images = [image(i, {CLASSES[i % 4]}) for i in range(40)]
    assert [i.path.stem for i in hold_out(images, 0.2, 0, 'calibration')] == FROZEN_HELD_OUT
    for number, own in enumerate(images):
        own.pixel_hash = str(number)
    assert [i.path.stem for i in hold_out(images, 0.2, 0, 'calibration')] == FROZEN_HELD_OUT


@given(image_lists, seeds, st.floats(0.01, 0.9))
@settings(max_examples=50, deadline=None)
def test_without_copies_the_pixels_decide_nothing(images, seed, fraction):
    for number, own in enumerate(images):
        own.pixel_hash = str(number)
    with patch.object(splitting, '_copies_together', lambda ordered: [(i,) for i in ordered]):
        drawn_by_name = hold_out(images, fraction, seed, 'calibration')
    assert hold_out(images, fraction, seed, 'calibration') == drawn_by_name


@given(image_lists, seeds, st.floats(0.05, 0.9), st.integers(1, 20))
@settings(max_examples=50, deadline=None)
def test_copies_are_held_out_together(images, seed, fraction, different):
    for number, own in enumerate(images):
        own.pixel_hash = str(number % different)
    held = hold_out(images, fraction, seed, 'calibration')
    learnt = [i for i in images if i.name not in names(held)]
    assert not {i.pixel_hash for i in held} & {i.pixel_hash for i in learnt}
    assert len(names(held)) == len(held)


def test_copies_leave_the_share_and_every_class_on_both_sides():
    images = [image(i, {CLASSES[i % 4]}) for i in range(80)]
    for number, own in enumerate(images):
        own.pixel_hash = str(number % 40)
    # One picture that was saved many times would be all that is held out.
    for number in range(30):
        copy = image(100 + number, {'a'})
        copy.pixel_hash = 'often'
        images.append(copy)
    held = hold_out(images, 0.2, 0, 'calibration')
    learnt = [i for i in images if i.name not in names(held)]
    assert len(held) == 22 and 'often' not in {i.pixel_hash for i in held}
    assert set(per_class(held)) == set(per_class(learnt)) == set(CLASSES)


def test_a_merged_copy_stays_on_the_side_of_the_older_image():
    images = [image(i, {'a'}) for i in range(40)]
    for number, own in enumerate(images):
        own.pixel_hash = str(number % 20)
    old = {'labelled': range(20), 'burn_in': range(10), 'calibration': range(10, 20)}
    before = {part: [images[i].name for i in numbers] for part, numbers in old.items()}
    source = Source('merged', Path(), ['a'], images)
    parts = extend_subsets(source, {'x': before}, {i.name for i in images[20:]}, 0.15)['x']
    assert {i.pixel_hash for i in parts['burn_in']} == {str(i) for i in range(10)}
    assert {i.pixel_hash for i in parts['calibration']} == {str(i) for i in range(10, 20)}
    assert len(parts['burn_in']) == len(parts['calibration']) == 20


def test_the_source_filing_decides_the_stratum():
    images = [image(i, {'a'}) for i in range(40)]
    for i in images[:10]:
        i.stratum = 'b'
    labelled = choose_labelled(images, 0.5, seed=0)
    assert len(labelled) == 20
    assert sum(i.stratum == 'b' for i in labelled) == 5


@given(image_lists.filter(lambda images: any(i.boxes for i in images)), seeds)
@settings(max_examples=30, deadline=None)
def test_subsets_are_disjoint_and_complete(images, seed):
    source = Source('voc', Path(), CLASSES, images)
    subsets = choose_subsets(source, Choices([0.1, 0.4, 1.0], [seed]))
    assert set(subsets) == {f'{percent}pct_seed{seed}' for percent in (10, 40, 100)}
    for parts in subsets.values():
        found = {part: names(chosen) for part, chosen in parts.items()}
        assert found['burn_in'] | found['calibration'] == found['labelled']
        assert not found['burn_in'] & found['calibration']
        if found['labelled'] == names(images):
            assert found['unlabelled'] == names(images)
        else:
            assert found['labelled'] | found['unlabelled'] == names(images)
            assert not found['labelled'] & found['unlabelled']


def test_extra_unlabelled_images_are_appended():
    extra = SourceImage(Path('x.png'), 'unlabelled/x.png')
    images = [image(i, {'a'}) for i in range(10)]
    source = Source('voc', Path(), ['a'], images, unlabelled=[extra])
    subsets = choose_subsets(source, Choices([0.5, 1.0], [0]))
    assert len(subsets['50pct_seed0']['unlabelled']) == 6
    assert names(subsets['100pct_seed0']['unlabelled']) == {'unlabelled/x.png'}


FROZEN_CHOICE = {'part0', 'part10', 'part15', 'part16', 'part17', 'part33', 'part34', 'part35'}
FROZEN_HELD_OUT = [f'part{number}' for number in (4, 25, 34, 15, 32, 37, 26, 39)]


def test_a_choice_of_too_few_labels_to_calibrate_on_is_told():
    images = [image(number, {'a'}) for number in range(10)]
    few = Source('coco', Path(), CLASSES[:1], images)
    subsets = choose_subsets(few, Choices(fractions=(0.1, 1.0), seeds=(0,)))
    assert not subsets['10pct_seed0']['calibration'] and subsets['100pct_seed0']['calibration']
    (told,) = [remark for remark in remarks_on(few, subsets) if 'calibrate' in remark]
    assert '10pct_seed0. DSYM cannot train' in told and '100pct' not in told
