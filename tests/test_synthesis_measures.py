"""Measures of synthesis quality, and the tool that writes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import call_tool

from mmdsym.diffusion import measures, synthesis_quality
from mmdsym.diffusion.copy_paste import CopyPasteSynthesiser
from mmdsym.diffusion.crop_features import CropFeatures
from mmdsym.diffusion.crop_set import collect_crops
from mmdsym.diffusion.labelled_images import LabelledImages, read_labelled_images
from mmdsym.diffusion.layout_config import parse_layout
from mmdsym.diffusion.measures import (
    class_accuracy,
    kernel_distance,
    nearest_distances,
    nearness,
)
from mmdsym.diffusion.synthesis import Synthesis
from mmdsym.diffusion.synthesis_quality import (
    SynthesisQuality,
    count_held_out_sources,
    paint_rival,
    read_painted_crops,
)
from mmdsym.errors import UserError


def images(root: Path, name: str) -> LabelledImages:
    return read_labelled_images(
        dict(
            type='mmdsym.DefectDataset',
            data_root=f'{root}/',
            ann_file=f'annotations/40pct_seed0/{name}',
            data_prefix=dict(img='images/'),
        )
    )


@pytest.fixture(scope='module')
def cache(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    synthesis = Synthesis(
        images(tiny_data, 'labelled.json'), CopyPasteSynthesiser(), parse_layout(None), count=4
    )
    return synthesis.make_or_find(tmp_path_factory.mktemp('caches')).folder


@pytest.fixture
def small_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crops so small that a test takes no time."""

    def small(**kwargs) -> CropFeatures:
        return CropFeatures(size=48, device='cpu')

    monkeypatch.setattr('mmdsym.diffusion.crop_classifier.CropFeatures', small)
    monkeypatch.setattr('mmdsym.diffusion.synthesis_quality.CropFeatures', small)


def test_kernel_distance_is_the_unbiased_polynomial_one():
    pytest.importorskip('torchmetrics')
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(30, 8, generator=generator)
    other = torch.randn(30, 8, generator=generator) + 0.7

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a.double() @ b.double().T / 8 + 1) ** 3

    own = sum((kernel(x, x).sum() - kernel(x, x).diag().sum()) / (30 * 29) for x in (one, other))
    expected = float(own - 2 * kernel(one, other).mean())
    found = kernel_distance(one, other, subsets=3)
    assert found.mean == pytest.approx(expected)
    assert found.std == pytest.approx(0, abs=1e-9)


def test_kernel_distance_tells_like_from_unlike_and_repeats():
    pytest.importorskip('torchmetrics')
    generator = torch.Generator().manual_seed(0)
    one, same, other = (torch.randn(count, 8, generator=generator) for count in (60, 45, 50))
    state = torch.random.get_rng_state()
    near, far = kernel_distance(one, same), kernel_distance(one, other + 1)
    assert abs(near.mean) < 0.1 * far.mean
    assert kernel_distance(one, same, subset_size=20) == kernel_distance(one, same, subset_size=20)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert kernel_distance(one, same[:1]) is None


def test_without_torchmetrics_the_package_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measures.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match='pip install torchmetrics'):
        kernel_distance(torch.zeros(3, 2), torch.zeros(3, 2))


def test_a_copy_is_seen():
    training = torch.eye(3)
    queries = torch.tensor([[0.0, 2, 0], [1, 1, 0], [-1, 0, 0]])
    assert nearest_distances(queries, training) == pytest.approx([0, 1 - 0.5**0.5, 1], abs=1e-6)
    assert len(nearest_distances(torch.zeros(0, 3), training)) == 0


def test_accuracy_counts_the_most_probable_class():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    assert class_accuracy(probabilities, 0) == 0.5
    assert class_accuracy(probabilities, 1) == 0
    assert class_accuracy(probabilities[:0], 0) is None


def test_only_painted_boxes_of_a_cache_are_measured(cache: Path):
    content = json.loads((cache / 'annotations.json').read_text())
    painted = [box for box in content['annotations'] if box['painted']]
    found = read_painted_crops(cache)
    assert 0 < len(found) == len(painted) < len(content['annotations'])
    boxes = {tuple(np.round(box, 3)) for box in found.boxes.tolist()}
    assert boxes == {
        tuple(np.round([x, y, x + w, y + h], 3)) for x, y, w, h in (box['bbox'] for box in painted)
    }
    assert next(iter(found.pixels())).shape == (64, 64, 3)


def test_a_folder_without_a_cache_is_named(tmp_path: Path):
    with pytest.raises(UserError, match='no finished cache'):
        read_painted_crops(tmp_path)
    with pytest.raises(UserError, match='missing or damaged'):
        paint_rival(tmp_path)


def test_the_rival_has_the_layouts_of_the_cache(cache: Path):
    found, rival = read_painted_crops(cache), paint_rival(cache)
    assert np.array_equal(found.boxes, rival.boxes)
    assert np.array_equal(found.labels, rival.labels)
    # The cache itself was made by copy-paste.
    for ours, theirs in zip(found.pixels(), rival.pixels(), strict=True):
        assert np.array_equal(ours, theirs)


def test_sources_that_are_held_out_are_counted(cache: Path, tiny_data: Path):
    content = json.loads((cache / 'annotations.json').read_text())
    counts = [
        count_held_out_sources(cache, images(tiny_data, name))
        for name in ('burn_in.json', 'calibration.json', 'unlabelled.json')
    ]
    assert sum(counts) == len(content['images'])
    assert counts[2] == 0


def test_shared_images_are_refused(tiny_data: Path):
    with pytest.raises(UserError, match='4 images are both'):
        SynthesisQuality(images(tiny_data, 'labelled.json'), images(tiny_data, 'burn_in.json'))


def test_copies_lie_at_no_distance_from_training(tiny_data: Path, small_features, monkeypatch):
    monkeypatch.setattr(synthesis_quality, 'kernel_distance', lambda *args: None)
    training = images(tiny_data, 'burn_in.json')
    quality = SynthesisQuality(training, images(tiny_data, 'calibration.json'))
    copies = collect_crops(training)
    rows = quality.report(synthesis_quality.only_defects(copies))
    assert list(rows) == ['dent', 'spot', 'all classes', 'clean surface']
    for name in ('dent', 'spot', 'all classes'):
        nearest = rows[name]['synthetic']['nearest_training']
        assert list(nearest.values()) == pytest.approx([0] * 4, abs=1e-5)
        assert rows[name]['real']['nearest_training']['percentile_1'] > 1e-3
        assert rows[name]['synthetic']['accuracy'] == 1
        assert rows[name]['real']['crops'] == (4 if name == 'all classes' else 2)


def test_a_few_copies_among_many_are_seen():
    generator = torch.Generator().manual_seed(0)
    training = torch.randn(50, 32, generator=generator)
    others = torch.randn(200, 32, generator=generator)
    without, with_copies = others.clone(), others.clone()
    with_copies[:4] = training[:4]
    one, other = nearness(without, training), nearness(with_copies, training)
    assert other.percentile_1 < 0.01 < 0.2 < one.percentile_1
    assert one.percentile_1 < one.percentile_10 < one.median
    # Neither the mean nor the median gives them away.
    assert other.mean == pytest.approx(one.mean, rel=0.05)
    assert other.median == pytest.approx(one.median, rel=0.05)
    assert nearness(others[:0], training) is None and nearness(others, training[:0]) is None


def test_the_tool_writes_json_and_prints_a_table(
    cache: Path, tiny_data: Path, tmp_path: Path, small_features, monkeypatch, capsys
):
    pytest.importorskip('torchmetrics')
    out = tmp_path / 'made' / 'quality.json'
    arguments = [cache, '--data', tiny_data, '--out', out]
    call_tool(monkeypatch, 'evaluate_synthesis.py', *arguments)
    results = json.loads(out.read_text())
    assert set(results['classes']) == {'dent', 'spot', 'all classes', 'clean surface'}
    assert set(results['classes']['dent']) == {'real', 'synthetic', 'copy_paste'}
    pooled = results['classes']['all classes']
    # The cache was made by copy-paste, its own rival.
    assert pooled['synthetic'] == pooled['copy_paste']
    assert np.isfinite(pooled['synthetic']['kernel_distance']['mean'])
    printed = capsys.readouterr().out
    assert '| dent | copy-paste |' in printed
    assert '| nearest x1000: 1 %, 10 %, 50 %, mean |' in printed
    row = next(line for line in printed.splitlines() if line.startswith('| all classes | synth'))
    shown = [float(number) for number in row.split('|')[-2].split(',')]
    nearest = pooled['synthetic']['nearest_training']
    assert shown == pytest.approx([1000 * value for value in nearest.values()], abs=0.06)
    assert ('held out here' in printed) == (results['synthetic_images_made_from_held_out_ones'] > 0)
    content = out.read_bytes()
    with pytest.raises(SystemExit) as stopped:
        call_tool(monkeypatch, 'evaluate_synthesis.py', *arguments)
    assert stopped.value.code == 2
    assert 'exists; add --force to replace it' in capsys.readouterr().err
    assert out.read_bytes() == content


def test_the_tool_names_a_folder_without_a_cache(
    tiny_data: Path, tmp_path: Path, monkeypatch, capsys
):
    pytest.importorskip('torchmetrics')
    with pytest.raises(SystemExit) as stopped:
        call_tool(
            monkeypatch,
            'evaluate_synthesis.py',
            tmp_path,
            '--data',
            tiny_data,
            '--out',
            tmp_path / 'x.json',
        )
    assert stopped.value.code == 2
    assert 'no finished cache' in capsys.readouterr().err
