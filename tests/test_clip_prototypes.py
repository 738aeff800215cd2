"""Prototypes: few labelled crops as a memory, tuned on others and kept on disk by content."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_data import TINY_CLIP
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import normalize

from mmdsym.clip import CLIPScorer
from mmdsym.clip.labelled_crops import read_labelled_crops, read_rgb
from mmdsym.clip.prototypes import LabelledFeatures, Prototypes
from mmdsym.errors import UserError
from mmdsym.evaluation.held_out_quality import judge
from mmdsym.evaluation.temperature import expected_calibration_error, fit_temperature
from mmdsym.free_space import covered_share


def clusters(count: int, spread: float, seed: int, classes: int = 3) -> LabelledFeatures:
    generator = torch.manual_seed(seed)
    labels = torch.arange(count) % classes
    noise = spread * torch.randn(count, 6, generator=generator)
    # What all crops share is much more than what tells them apart.
    return LabelledFeatures(normalize(torch.eye(classes, 6)[labels] + 5 + noise, dim=1), labels)


def test_the_nearest_cluster_wins():
    keys, held_out = clusters(30, 0.2, 0), clusters(60, 0.2, 1)
    prototypes = Prototypes(*keys, 3).tuned(None, held_out)
    found = prototypes.logits(held_out.features).argmax(dim=1)
    assert (found == held_out.labels).float().mean() > 0.95


def test_prototypes_alone_give_each_classs_share_of_affinity():
    keys = clusters(9, 0.3, 0)
    likeness = normalize(keys.features - keys.features.mean(0), dim=1)
    affinity = torch.exp(7 * (likeness @ likeness.T - 1))
    share = affinity @ torch.nn.functional.one_hot(keys.labels, 3).float()
    found = Prototypes(*keys, 3, beta=7.0).logits(keys.features).softmax(dim=1)
    assert torch.allclose(found, share / share.sum(dim=1, keepdim=True), atol=1e-5)


def test_a_class_without_a_key_is_neither_likely_nor_excluded():
    logits = Prototypes(*clusters(12, 0.2, 0), 5).logits(clusters(4, 0.2, 1).features)
    assert logits.isfinite().all()
    assert torch.allclose(logits[:, 3], logits[:, :3].mean(dim=1))
    assert torch.equal(logits[:, 3], logits[:, 4])


def test_useless_sentences_are_outvoted_and_useful_ones_heard():
    keys, held_out = clusters(30, 0.2, 0), clusters(60, 0.2, 1)
    noise = 3 * torch.randn(60, 3, generator=torch.manual_seed(2))
    prototypes = Prototypes(*keys, 3).tuned(noise, held_out)
    found = (noise + prototypes.logits(held_out.features)).argmax(dim=1)
    assert (found == held_out.labels).float().mean() > 0.9
    blurred, unseen = clusters(30, 3.0, 3), clusters(60, 3.0, 4)
    right = 5.0 * torch.eye(3)[unseen.labels]
    prototypes = Prototypes(*blurred, 3).tuned(right, unseen)
    found = (right + prototypes.logits(unseen.features)).argmax(dim=1)
    assert (found == unseen.labels).float().mean() > 0.9


@given(scale=st.floats(0.2, 20))
def test_the_temperature_undoes_a_scale(scale):
    generator = torch.manual_seed(0)
    labels = torch.randint(0, 3, (400,), generator=generator)
    logits = 1.5 * torch.eye(3)[labels] + torch.randn(400, 3, generator=generator)
    base, loss = fit_temperature(logits, labels)
    scaled, same_loss = fit_temperature(scale * logits, labels)
    assert scaled == pytest.approx(scale * base, rel=0.02)
    assert same_loss == pytest.approx(loss, abs=1e-3)


def test_temperatures_at_the_edges():
    assert fit_temperature(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))[0] == 1
    labels = torch.arange(6) % 3
    temperature, _ = fit_temperature(torch.eye(3)[labels], labels)
    # Six crops that are all right do not make certain.
    assert (torch.eye(3) / temperature).softmax(dim=1).max() < 0.99


def test_calibration_error():
    labels = torch.tensor([0, 0, 0, 1])
    honest = torch.tensor([[0.75, 0.25]]).repeat(4, 1)
    assert expected_calibration_error(honest, labels) == pytest.approx(0)
    boastful = torch.tensor([[1.0, 0.0]]).repeat(4, 1)
    assert expected_calibration_error(boastful, labels) == pytest.approx(0.25)
    assert expected_calibration_error(honest[:0], labels[:0]) == 0


def test_chance_is_recognised():
    labels = torch.arange(90) % 3
    random = torch.rand(90, 3, generator=torch.manual_seed(0))
    assert not judge(random, labels).better_than_chance
    assert judge(torch.eye(3)[labels], labels).better_than_chance
    # Always naming the most frequent class is no knowledge.
    mostly = torch.zeros(90, dtype=torch.long)
    mostly[:20] = 1
    assert not judge(torch.eye(3)[torch.zeros(90, dtype=torch.long)], mostly).better_than_chance
    assert not judge(random[:0], labels[:0]).better_than_chance


def test_clean_surface_lies_between_the_defects(tiny_data):
    found = read_labelled_crops(
        tiny_data / 'annotations/40pct_seed0/labelled.json', tiny_data / 'images', 3
    )
    clean = 0
    for image in found.images:
        for box, label in zip(image.boxes, image.labels, strict=True):
            assert (box >= 0).all() and (box[2:] <= image.size).all()
            if label == 2:
                clean += 1
                assert covered_share(box, image.taken) == 0
    assert clean > 0
    again = read_labelled_crops(
        tiny_data / 'annotations/40pct_seed0/labelled.json', tiny_data / 'images', 3
    )
    assert np.array_equal(again.images[0].boxes, found.images[0].boxes)


def test_unlabelled_images_are_no_labelled_split(tiny_data):
    with pytest.raises(UserError, match='no labelled box'):
        read_labelled_crops(
            tiny_data / 'annotations/40pct_seed0/unlabelled.json', tiny_data / 'images'
        )


def test_damaged_and_missing_images(tmp_path):
    with pytest.raises(UserError, match='gone.png cannot be read'):
        read_rgb(tmp_path / 'gone.png')
    (tmp_path / 'broken.png').write_bytes(b'broken')
    with pytest.raises(UserError, match='broken.png is damaged'):
        read_rgb(tmp_path / 'broken.png')


@pytest.fixture
def data(tiny_data: Path, tmp_path: Path) -> Path:
    """The tiny data, free to be changed."""
    return Path(shutil.copytree(tiny_data, tmp_path / 'data'))


def source(data: Path, cache: Path | None) -> dict:
    split = data / 'annotations' / '40pct_seed0'
    return dict(
        ann_file=str(split / 'burn_in.json'),
        held_out_file=str(split / 'calibration.json'),
        images_dir=str(data / 'images'),
        cache_dir=None if cache is None else str(cache),
    )


def build(data: Path, cache: Path | None = None, **options) -> CLIPScorer:
    torch.manual_seed(0)
    return CLIPScorer(
        classes=('dent', 'spot'), model=TINY_CLIP, prototypes=source(data, cache), **options
    )


def test_a_scorer_learns_from_the_labelled_split(data):
    text, both = build(data, evidence='text'), build(data)
    box, image = torch.tensor([[5.0, 5, 25, 30]]), torch.rand(3, 64, 64) * 255
    before = text.score([image], [box], [torch.zeros(1)])[0]
    after = both.score([image], [box], [torch.zeros(1)])[0]
    assert text.prototypes is None
    assert len(both.prototypes.keys) >= 8  # four images of two defects
    assert torch.equal(before.features, after.features)
    assert not torch.allclose(before.distribution, after.distribution)
    assert both.held_out.crops >= 4
    assert both.temperature != 1


def test_features_are_kept_by_content(data, tmp_path, monkeypatch):
    cache = tmp_path / 'cache'
    first = build(data, cache)
    fingerprint = first.fingerprint
    files = sorted(path.name for path in cache.iterdir())
    assert len(files) == 2
    second = build(data, cache)
    monkeypatch.setattr(second, 'embed', None)
    assert second.fingerprint == fingerprint
    brighten(data / 'images' / '000.png')
    third = build(data, cache)
    third.prepare()
    assert len(list(cache.iterdir())) == 3
    assert third.fingerprint != fingerprint


def test_features_of_another_precision_are_not_served(data, tmp_path, monkeypatch):
    cache = tmp_path / 'cache'
    for answer in ('0', '1', '0'):
        monkeypatch.setenv('MMDSYM_BFLOAT16', answer)
        build(data, cache).prepare()
    assert len(list(cache.iterdir())) == 4


def brighten(path: Path) -> None:
    pixels = np.asarray(Image.open(path))
    Image.fromarray(255 - pixels).save(path)


@pytest.mark.parametrize('damage', [b'', b'no features'])
def test_a_damaged_cache_is_built_anew(data, tmp_path, damage):
    cache = tmp_path / 'cache'
    fingerprint = build(data, cache).fingerprint
    for path in cache.iterdir():
        path.write_bytes(damage)
    assert build(data, cache).fingerprint == fingerprint
    assert all(len(path.read_bytes()) > 100 for path in cache.iterdir())


def test_nothing_but_the_labelled_split_is_needed(data):
    (data / 'annotations' / 'val.json').unlink()
    (data / 'annotations' / 'train.json').unlink()
    for name in ('labelled.json', 'unlabelled.json'):
        (data / 'annotations' / '40pct_seed0' / name).unlink()
    for index in range(6, 12):
        (data / 'images' / f'{index:03d}.png').unlink()
    scorer = build(data)
    scorer.prepare()
    assert scorer.prototypes is not None


def test_other_classes_than_the_data(data):
    scorer = CLIPScorer(classes=('dent',), model=TINY_CLIP, prototypes=source(data, None))
    with pytest.raises(UserError, match=r"\['dent', 'spot'\], the CLIP scorer \['dent'\]"):
        scorer.prepare()


def test_classes_from_the_annotation_file(data):
    name = str(data / 'annotations' / '40pct_seed0' / 'burn_in.json')
    assert CLIPScorer(classes=name, model=TINY_CLIP).classes == ('dent', 'spot')


def test_a_scorer_that_knows_nothing_says_so(data):
    scorer = CLIPScorer(classes=('dent', 'spot'), model=TINY_CLIP)
    generator = torch.manual_seed(0)
    features = normalize(torch.randn(60, 8, generator=generator), dim=1)
    scorer.fit(None, LabelledFeatures(features, torch.arange(60) % 3))
    assert not scorer.held_out.better_than_chance
