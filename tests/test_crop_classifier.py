"""Crop features, the probe on them, the classifier, and the acceptance test made of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_data
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdsym.diffusion import classifier_acceptance, crop_classifier
from mmdsym.diffusion.crop_classifier import CropClassifier
from mmdsym.diffusion.crop_features import CropFeatures
from mmdsym.diffusion.crop_set import collect_crops
from mmdsym.diffusion.labelled_images import LabelledImage, LabelledImages, read_labelled_images
from mmdsym.diffusion.linear_probe import fit_cross_validated, fit_probe
from mmdsym.diffusion.synthesiser import CLEAN_SURFACE
from mmdsym.errors import UserError
from mmdsym.free_space import covered_share
from mmdsym.registry import ACCEPTANCE_TESTS

SMALL = dict(size=48, device='cpu')
MANY = '../train.json'
"""Enough crops to show what a classifier is worth."""


def dataset(root: Path, name: str = 'burn_in.json') -> dict:
    return dict(
        type='mmdsym.DefectDataset',
        data_root=f'{root}/',
        ann_file=str(root / 'annotations/40pct_seed0' / name),
        data_prefix=dict(img='images/'),
    )


@pytest.fixture(scope='module')
def features() -> CropFeatures:
    return CropFeatures(**SMALL)


@pytest.fixture(scope='module')
def classifier(tiny_data: Path, features: CropFeatures) -> CropClassifier:
    return CropClassifier(read_labelled_images(dataset(tiny_data)), features=features)


@pytest.fixture(scope='module')
def many_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp('many') / 'data', count=20)


@pytest.fixture(scope='module')
def acceptance(many_data: Path):
    return build(many_data, MANY)


def build(root: Path, name: str = 'burn_in.json', **settings):
    return ACCEPTANCE_TESTS.build(
        dict(
            type='mmdsym.CropClassifierAcceptance',
            dataset=dataset(root, name),
            features=SMALL,
            # Fitted once for all tests.
            **{'cache_file': str(root.parent / 'probe.safetensors'), **settings},
        )
    )


def crops(root: Path, name: str = 'calibration.json'):
    return collect_crops(read_labelled_images(dataset(root, name)))


def test_features_do_not_depend_on_what_stands_beside(features: CropFeatures):
    generator = np.random.default_rng(0)
    image = generator.integers(0, 255, (40, 60, 3), dtype=np.uint8)
    boxes = np.array([[0, 0, 60, 40], [5, 5, 6, 6], [10, 10, 30, 20]], float)
    together = features.extract([image] * 3, boxes)
    assert together.shape == (3, features.length)
    for row, box in zip(together, boxes, strict=True):
        assert torch.equal(features.extract([image], box[None])[0], row)
    assert features.extract([], np.zeros((0, 4))).shape == (0, features.length)


def test_turned_features_do_not_depend_on_quarter_turns():
    features = CropFeatures(contexts=(1.0, 1.5), turned=True, **SMALL)
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    image[:, :10] = 0
    box = np.array([[8.0, 8, 24, 24]])
    ahead, turned = (
        features.extract([pixels], box)
        for pixels in (image, np.ascontiguousarray(image.T.copy().transpose(1, 2, 0)[::-1]))
    )
    assert ahead.shape == (1, 2 * 1280)
    assert torch.allclose(ahead, turned, atol=1e-3)


def test_other_settings_have_another_fingerprint(features: CropFeatures):
    assert CropFeatures(**SMALL).fingerprint == features.fingerprint
    assert CropFeatures(**SMALL, contexts=(1.2,)).fingerprint != features.fingerprint


@st.composite
def labelled(draw: st.DrawFn) -> LabelledImages:
    images = []
    for number in range(draw(st.integers(1, 4))):
        width, height = draw(st.integers(1, 50)), draw(st.integers(1, 50))
        count = draw(st.integers(0, 3))
        x = np.sort(draw_numbers(draw, count, width), axis=1)
        y = np.sort(draw_numbers(draw, count, height), axis=1)
        boxes = np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1)
        labels = np.arange(count) % 2
        ignored = np.arange(count) == draw(st.integers(0, 5))
        images.append(LabelledImage(f'{number}.png', (width, height), boxes, labels, ignored))
    return LabelledImages(images, ('a', 'b'))


def draw_numbers(draw: st.DrawFn, count: int, most: int) -> np.ndarray:
    number = st.integers(0, most)
    pairs = draw(st.lists(st.tuples(number, number), min_size=count, max_size=count))
    return np.array(pairs, dtype=float).reshape(-1, 2)


@given(labelled())
@settings(max_examples=50)
def test_clean_pieces_touch_no_defect(images: LabelledImages):
    found = collect_crops(images)
    for number, box, label in zip(found.index, found.boxes, found.labels, strict=True):
        image = images[number]
        assert (box[2:] > box[:2]).all()
        assert (box[2:] <= np.array(image.size) + 1e-6).all()
        if label == 2:
            assert covered_share(box, image.boxes) == 0
        else:
            match = (image.boxes == box).all(axis=1) & (image.labels == label) & ~image.ignored
            assert match.any()
    usable = sum(
        int((((i.boxes[:, 2:] - i.boxes[:, :2]) > 0).all(axis=1) & ~i.ignored).sum())
        for i in images
    )
    assert (found.labels < 2).sum() == usable


def test_a_probe_separates_what_is_separable_and_never_names_an_unknown_class():
    generator = np.random.default_rng(0)
    labels = torch.arange(40) % 2
    rows = torch.from_numpy(generator.normal(0, 1, (40, 6))).float()
    rows[:, 0] += 6 * labels
    probe = fit_probe(rows, labels, 3, 1e-3)
    probabilities = probe.probabilities(rows)
    assert torch.equal(probabilities.argmax(dim=1), labels)
    assert (probabilities[:, 2] == 0).all()
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(40))


def test_images_are_not_torn_apart():
    """Features that tell the image, with a label of its own each: nothing can be foretold."""
    groups = np.repeat(np.arange(12), 5)
    rows = torch.eye(12)[groups] * 5
    labels = torch.from_numpy(np.random.default_rng(0).permutation(12) % 2)[groups]
    fitted = fit_cross_validated(rows, labels, groups, 2)
    seen = fitted.probe.probabilities(rows).argmax(dim=1) == labels
    held_out = fitted.held_out.gather(1, labels[:, None])
    assert seen.float().mean() > 0.9
    assert held_out.mean() < 0.6


def test_a_single_image_is_enough_to_fit():
    fitted = fit_cross_validated(torch.eye(4), torch.tensor([0, 0, 1, 1]), np.zeros(4), 2)
    assert torch.isfinite(fitted.held_out).all()


def test_it_recognises_crops_of_images_that_it_has_not_seen(
    classifier: CropClassifier, tiny_data: Path
):
    held_out = crops(tiny_data)
    probabilities = classifier.judge(held_out)
    assert classifier.names == ('dent', 'spot', 'clean surface')
    assert probabilities.shape == (len(held_out), 3)
    defects = held_out.labels < 2
    right = probabilities.argmax(axis=1) == held_out.labels
    assert right[defects].mean() >= 0.75


def test_the_fitted_probe_is_kept(
    tiny_data: Path, features: CropFeatures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    images = read_labelled_images(dataset(tiny_data))
    file = tmp_path / 'kept' / 'probe.safetensors'
    first = CropClassifier(images, file, features).own_probabilities(0)
    content = file.read_bytes()
    fit = crop_classifier.fit_cross_validated
    fits = []
    monkeypatch.setattr(
        crop_classifier, 'fit_cross_validated', lambda *args: fits.append(args) or fit(*args)
    )
    assert np.array_equal(CropClassifier(images, file, features).own_probabilities(0), first)
    assert not fits
    file.write_bytes(content[: len(content) // 2])
    assert np.array_equal(CropClassifier(images, file, features).own_probabilities(0), first)
    assert len(fits) == 1
    assert file.read_bytes() == content
    others = read_labelled_images(dataset(tiny_data, 'calibration.json'))
    CropClassifier(others, file, features).own_probabilities(0)
    assert len(fits) == 2


def test_data_without_a_box_are_refused(tiny_data: Path, features: CropFeatures):
    images = read_labelled_images(dataset(tiny_data, 'unlabelled.json'))
    with pytest.raises(UserError, match='no labelled box'):
        CropClassifier(images, features=features)


def test_real_defects_are_accepted_and_other_classes_are_not(acceptance, many_data: Path):
    known = crops(many_data, MANY)
    images = list(known.pixels())
    labels = np.where(known.labels == 2, CLEAN_SURFACE, known.labels)
    accepted = acceptance.accept(images, known.boxes, labels)
    assert accepted.dtype == bool
    assert accepted.mean() >= 0.8
    defects = known.labels < 2
    swapped = acceptance.accept(images, known.boxes, np.where(defects, 1 - labels, 0))
    assert swapped.mean() <= 0.2


def test_the_bar_lies_at_the_quantile_of_real_crops_but_not_below_chance(tiny_data: Path):
    real = build(tiny_data).classifier.own_probabilities(0)
    assert len(real) == 4
    for quantile in (0.0, 0.5, 0.9):
        expected = max(1 / 3, np.quantile(real, quantile))
        assert build(tiny_data, quantile=quantile).threshold(0) == pytest.approx(expected)


def test_one_bar_for_all_classes(many_data: Path, acceptance):
    everything = build(many_data, MANY, min_probability=0.0)
    known = crops(many_data)
    images = list(known.pixels())
    assert everything.accept(images, known.boxes, np.zeros(len(known), int)).all()
    assert everything.fingerprint != acceptance.fingerprint
    assert build(many_data, MANY, quantile=0.2).fingerprint != acceptance.fingerprint
    assert build(many_data, MANY).fingerprint == acceptance.fingerprint


def test_a_class_without_a_box_is_never_accepted(many_data: Path, tmp_path: Path):
    content = json.loads((many_data / 'annotations/train.json').read_text())
    content['annotations'] = [box for box in content['annotations'] if box['category_id'] == 1]
    file = tmp_path / 'one_class.json'
    file.write_text(json.dumps(content))
    built = build(many_data, str(file), min_probability=0.0, cache_file=None)
    known = crops(many_data)
    images = list(known.pixels())
    assert not built.accept(images, known.boxes, np.ones(len(known), int)).any()
    assert built.accept(images, known.boxes, np.zeros(len(known), int)).all()


def shuffled_labels(root: Path, file: Path) -> Path:
    """Writes the labelled boxes of a data set with their classes dealt out at random."""
    content = json.loads((root / 'annotations/train.json').read_text())
    labels = [box['category_id'] for box in content['annotations']]
    shuffled = np.random.default_rng(1).permutation(labels).tolist()
    for box, label in zip(content['annotations'], shuffled, strict=True):
        box['category_id'] = label
    # Clean surface, too, could be told apart: every image is covered by one crowd.
    for image in content['images']:
        whole = dict(bbox=[0, 0, image['width'], image['height']], iscrowd=1, category_id=1)
        content['annotations'].append(
            dict(whole, id=1000 + image['id'], image_id=image['id'], area=1)
        )
    file.write_text(json.dumps(content))
    return file


def test_a_classifier_that_knows_nothing_accepts_all_and_says_so_once(
    many_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, acceptance
):
    said = []
    monkeypatch.setattr(
        classifier_acceptance, 'print_log', lambda message, **settings: said.append(message)
    )
    file = shuffled_labels(many_data, tmp_path / 'shuffled.json')
    known = crops(many_data, MANY)
    images = list(known.pixels())
    for bar in (dict(), dict(min_probability=1.0)):
        said.clear()
        useless = build(many_data, str(file), cache_file=None, **bar)
        for label in (0, 1, CLEAN_SURFACE):
            assert useless.accept(images, known.boxes, np.full(len(known), label)).all()
        assert len(said) == 1
        assert 'no better than chance on 36 held-out crops' in said[0]
        assert '\n' not in said[0]
    said.clear()
    assert not acceptance.accept(images, known.boxes, np.zeros(len(known), int)).all()
    assert not said


def test_another_version_of_the_decision_has_another_fingerprint(acceptance, monkeypatch):
    before = acceptance.fingerprint
    monkeypatch.setattr(classifier_acceptance, 'FORMAT', classifier_acceptance.FORMAT + 1)
    assert acceptance.fingerprint != before


@pytest.mark.parametrize(
    'wrong', [dict(quantile=1.0), dict(quantile=-0.1), dict(min_probability=2)]
)
def test_numbers_out_of_range_are_named(tiny_data: Path, wrong: dict):
    with pytest.raises(UserError, match=next(iter(wrong))):
        build(tiny_data, **wrong)
