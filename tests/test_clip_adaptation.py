"""Adaptation: crops and their augmentation, losses, what learns, and training from the config."""

from __future__ import annotations

import json
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_data import TINY_CLIP
from hypothesis import given
from hypothesis import strategies as st
from mmengine.dataset import worker_init_fn

from mmdsym.clip import CLIPAdaptation, CLIPScorer, CropDataset, CropMetric, folded
from mmdsym.clip import adaptation as adaptation_module
from mmdsym.clip.contrastive import class_contrastive_losses
from mmdsym.clip.crop_augmentation import CropAugmentation, edge_offsets
from mmdsym.clip.encoder import view_crops
from mmdsym.clip.export_hook import write_adapted
from mmdsym.clip.views import CropView
from mmdsym.command_line import build_runner
from mmdsym.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
VIEW = CropView(2.0, 'box')


def crops_of(data: Path, **options) -> CropDataset:
    split = data / 'annotations' / '40pct_seed0'
    options = dict(views=[dict(context=1.5, shape='box')], size=32, **options)
    return CropDataset(str(split / 'burn_in.json'), str(data / 'images'), **options)


def test_the_loss_is_zero_where_every_crop_finds_its_class():
    labels = torch.tensor([0, 0, 2, 2, 2])
    losses = class_contrastive_losses(100 * torch.eye(4)[labels], labels)
    assert [float(loss) for loss in losses] == pytest.approx([0, 0], abs=1e-5)
    worse = class_contrastive_losses(torch.eye(4)[labels], labels)
    wrong = class_contrastive_losses(torch.eye(4)[labels.flip(0)], labels)
    assert all(0 < a < b for a, b in zip(worse, wrong, strict=True))


def test_crops_of_one_class_are_no_negatives_of_each_other():
    logits = torch.tensor([[5.0, 0.0]])
    one = class_contrastive_losses(torch.cat([logits, logits.flip(1)]), torch.tensor([0, 1]))
    many = class_contrastive_losses(
        torch.cat([logits, logits, logits.flip(1), logits.flip(1)]), torch.tensor([0, 0, 1, 1])
    )
    assert torch.allclose(torch.stack(one), torch.stack(many), atol=1e-5)


def test_no_crop_no_loss():
    losses = class_contrastive_losses(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    assert [float(loss) for loss in losses] == [0, 0]


@given(seed=st.integers(0, 10_000))
def test_offsets_turn_with_the_crop(seed):
    """The borders of a bright defect lie where the offsets say, in every orientation."""
    generator = np.random.default_rng(seed)
    true_box = np.array([60.0, 50, 120, 90])
    image = torch.zeros(1, 160, 200)
    image[:, 50:90, 60:120] = 255
    augmentation = CropAugmentation(strong_jitter=0.15)
    box = augmentation.jitter(true_box, (200, 160), generator)
    crop = view_crops(image, torch.from_numpy(box).float()[None], [VIEW], 128)[0]
    turned, offsets = augmentation.turn(crop, edge_offsets(box, true_box), generator)
    bright = turned[0, 0] > 127
    columns, rows = bright.any(dim=0).nonzero()[:, 0], bright.any(dim=1).nonzero()[:, 0]
    found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / 64
    # With a context of two the box itself covers the middle half of the crop.
    expected = np.array([0.5, 0.5, 1.5, 1.5]) + offsets
    assert np.abs(found - expected.clip(0, 2)).max() < 0.05


@given(seed=st.integers(0, 10_000), corner=st.tuples(st.floats(0, 150), st.floats(0, 150)))
def test_jittered_boxes_stay_boxes_of_the_image(seed, corner):
    box = np.array([*corner, corner[0] + 40, corner[1] + 5])
    moved = CropAugmentation().jitter(box, (190, 155), np.random.default_rng(seed))
    assert (moved[2:] - moved[:2] >= 4).all()
    assert np.array_equal(moved, box) or (moved >= 0).all() and (moved[2:] <= [190, 155]).all()


def test_crops_are_what_is_labelled(tiny_data):
    crops = crops_of(tiny_data, jittered_copies=1)
    labels = [crops[index]['label'] for index in range(len(crops))]
    assert set(labels) == {0, 1, 2}
    plain = crops[0]
    assert plain['inputs'].shape == (1, 3, 32, 32)
    assert plain['inputs'].dtype == torch.uint8
    assert (plain['overlap'], plain['jittered']) == (1, False)
    assert not plain['offsets'].any()
    moved = [crops[n] for n in range(len(crops)) if crops[n]['jittered']]
    assert len(moved) == 8
    assert any(item['overlap'] < 0.95 for item in moved)
    assert torch.equal(crops[len(crops) - 1]['inputs'], crops[len(crops) - 1]['inputs'])
    clean = next(crops[index] for index, label in enumerate(labels) if label == 2)
    assert clean['overlap'] == 0


def test_balanced_crops(tiny_data):
    crops = crops_of(tiny_data, balanced=True, augmentation=dict())
    counts = np.bincount([crops[index]['label'] for index in range(len(crops))])
    assert len(set(counts)) == 1
    drawn = [crops[0]['inputs'] for _ in range(3)]
    assert not torch.equal(drawn[0], drawn[1])


def test_crops_vary_by_seed_and_turn_alone(tiny_data):
    """Not by what else draws random numbers, and two workers never alike."""

    def first_batches(seed: int, workers: int, disturbed: bool = False) -> list:
        torch.manual_seed(seed)
        crops = crops_of(tiny_data, augmentation=dict())
        loader = torch.utils.data.DataLoader(
            crops,
            batch_size=2,
            sampler=[0] * 8,
            num_workers=workers,
            worker_init_fn=partial(worker_init_fn, num_workers=workers, rank=0, seed=seed),
        )
        batches = []
        for batch in loader:
            batches.append(batch['inputs'])
            if disturbed:
                np.random.seed(len(batches))
                torch.manual_seed(len(batches))
        return torch.cat(batches)

    for workers in (0, 2):
        drawn = first_batches(3, workers)
        assert torch.equal(drawn, first_batches(3, workers, disturbed=True))
        assert not torch.equal(drawn, first_batches(4, workers))
        # Of the same crop no two pictures are the same.
        assert len({crop.numpy().tobytes() for crop in drawn}) == 8


def adaptation(**options) -> CLIPAdaptation:
    torch.manual_seed(0)
    options = {'views': [dict(context=1.5, shape='box')], **options}
    return CLIPAdaptation(classes=('dent', 'spot'), model=TINY_CLIP, **options)


def batch_of(crops: CropDataset, count: int = 8) -> dict:
    order = np.linspace(0, len(crops) - 1, count).astype(int)
    return torch.utils.data.default_collate([crops[int(index)] for index in order])


@pytest.mark.parametrize(
    ('options', 'trunk', 'text', 'extent'),
    [
        (dict(), True, True, True),
        (dict(trained_groups=0, train_text=False), False, False, True),
        (dict(trained_groups=2, extent_weight=0), True, True, False),
    ],
)
def test_what_learns(tiny_data, options, trunk, text, extent):
    model = adaptation(**options).train()
    losses = model(**batch_of(crops_of(tiny_data, augmentation=dict())), mode='loss')
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    gradients = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert any('visual.trunk' in name for name in gradients) == trunk
    assert any('text.transformer' in name for name in gradients) == text
    assert any(name.startswith('extent_head') for name in gradients) == extent
    assert any('visual.head.proj' in name for name in gradients)
    assert not any('token_embedding' in name for name in gradients)
    stem = 'encoder.network.visual.trunk.conv_stem.weight'
    assert (stem in gradients) == (options.get('trained_groups') is None)


def exported(folder, **options) -> Path:
    """An adapted model with sentences of its own, trained a little."""
    model = adaptation(prompts=dict(dent='a hollow', spot='a stain'), **options)
    with torch.no_grad():
        model.extent_head.linear.bias.add_(0.5)
    write_adapted(folder, model)
    return folder


def test_adapting_further_goes_on_with_what_was_learnt(tmp_path):
    folder = exported(tmp_path / 'first', background_prompts='plain wood')
    classes = ('dent', 'spot')
    model = CLIPAdaptation(classes, weights=folder)
    assert model.prompts == [['a hollow'], ['a stain'], ['plain wood']]
    assert model.views == [CropView(1.5, 'box')]
    assert (model.extent_head.linear.bias > 0.3).any()
    own = dict(dent=['a dent'], spot=['a spot'])
    changed = CLIPAdaptation(classes, weights=folder, prompts=own, views=[{}, {}])
    assert changed.prompts == [['a dent'], ['a spot'], ['plain wood']]
    assert len(changed.views) == 2 and changed.extent_head.width == 2 * model.extent_head.width
    # The export passes them on, and the scorer asks what the model was taught to answer.
    write_adapted(tmp_path / 'second', model)
    assert CLIPScorer(weights=tmp_path / 'second').prompts == model.prompts
    scorer = CLIPScorer(weights=tmp_path / 'second', prompts=own)
    assert scorer.prompts == changed.prompts


def test_crops_in_other_views_are_named(tiny_data):
    model = adaptation(views=[dict(context=1.5, shape='box'), dict()])
    with pytest.raises(UserError, match='1 views, the CLIP model 2'):
        model(**batch_of(crops_of(tiny_data)), mode='loss')


@pytest.mark.parametrize('scale', [14.0, 100.0])
def test_losses_in_mixed_precision_are_those_of_float32(tiny_data, scale, monkeypatch):
    model = adaptation(prompts=dict(dent='a dent', spot='a spot'), background_prompts='steel')
    model.eval()
    with torch.no_grad():
        model.encoder.network.logit_scale.fill_(np.log(scale))
    batch = batch_of(crops_of(tiny_data, jittered_copies=1), 12)
    compared = []
    losses = adaptation_module.class_contrastive_losses
    monkeypatch.setattr(
        adaptation_module,
        'class_contrastive_losses',
        lambda logits, *rest: compared.append(logits) or losses(logits, *rest),
    )
    expected = model(**batch, mode='loss')
    with torch.autocast('cpu', torch.bfloat16):
        found = model(**batch, mode='loss')
        scores = model(**batch, mode='predict')
    total = sum(value for name, value in found.items() if 'loss' in name)
    total.backward()
    for name, value in found.items():
        assert value.dtype == torch.float32 and value.isfinite()
        if 'loss' in name:
            wanted = expected[name].item()
            assert value.item() == pytest.approx(wanted, rel=0.05, abs=0.02), name
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert all(logits.dtype == torch.float32 for logits in compared)
    assert all(float(s['probabilities'].sum()) == pytest.approx(1, abs=1e-5) for s in scores)


def test_a_crop_that_leaves_nothing_has_a_finite_feature_in_half_precision(monkeypatch):
    encoder = adaptation().encoder
    trunk = encoder.network.visual.trunk.num_features
    monkeypatch.setattr(encoder, '_trunk', lambda x: torch.zeros(len(x), trunk).half())
    monkeypatch.setattr(encoder.network.visual, 'head', torch.nn.Identity())
    found = encoder.encode_parts(torch.zeros(2, 3, 32, 32))
    assert all((part == 0).all() and part.dtype == torch.float32 for part in found.values())


def test_batch_norm_keeps_its_statistics(tiny_data):
    model = adaptation().train()
    before = model.encoder.network.visual.trunk.bn1.running_mean.clone()
    model(**batch_of(crops_of(tiny_data)), mode='loss')
    assert torch.equal(before, model.encoder.network.visual.trunk.bn1.running_mean)


def test_too_many_groups():
    with pytest.raises(UserError, match='trained_groups=99'):
        adaptation(trained_groups=99)


def test_losses_fall(tiny_data):
    model = adaptation(trained_groups=1).train()
    batch = batch_of(crops_of(tiny_data), 10)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
    totals = []
    for _ in range(12):
        losses = model(**batch, mode='loss')
        total = sum(value for name, value in losses.items() if 'loss' in name)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.7 * totals[0]


def test_the_metric():
    metric = CropMetric()
    metric.dataset_meta = dict(classes=('dent', 'spot'))
    right, wrong = torch.tensor([0.8, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.8])
    rows = [(right, 0, 1.0, False, 0.9), (wrong, 0, 1.0, False, 0.2), (wrong, 2, 0.0, False, 0.1)]
    rows += [(right, 1, 0.4, True, 0.4), (right, 1, 0.8, True, 0.8)]
    names = ('probabilities', 'label', 'overlap', 'jittered', 'expected_overlap')
    samples = [dict(zip(names, map(torch.as_tensor, row), strict=True)) for row in rows]
    metric.process(None, samples)
    found = metric.evaluate(len(rows))
    assert found['clip/accuracy'] == pytest.approx(2 / 3)
    assert found['clip/balanced_accuracy'] == pytest.approx(0.75)
    assert found['clip/accuracy/dent'] == 0.5
    assert found['clip/overlap_r2'] == pytest.approx(1)
    assert 'clip/accuracy/spot' not in found
    assert (found['clip/crops'], found['clip/better_than_chance']) == (3, 0)


@pytest.fixture
def adapt_config(tiny_config, tmp_path):
    """The config of NEU-DET on the tiny data, with a tiny model and few iterations."""

    def load(max_iters: int, **options):
        cfg = tiny_config('clip/adapt_clip_neu_40pct.py', **options)
        cfg.work_dir = str(tmp_path / 'work')
        cfg.model.update(model=TINY_CLIP, image_pretrained=None, trained_groups=2)
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            loader.update(num_workers=0, persistent_workers=False, batch_size=6)
            loader.dataset.size = 32
        cfg.train_cfg.update(max_iters=max_iters, val_interval=2)
        cfg.default_hooks.checkpoint.interval = 2
        cfg.param_scheduler = []
        cfg.custom_hooks[-1].out_dir = str(tmp_path / 'adapted')
        return cfg

    return load


def test_training_resuming_and_scoring(adapt_config, tmp_path, tiny_data, monkeypatch):
    monkeypatch.setattr(folded, 'bfloat16_is_faster', lambda: False)
    build_runner(adapt_config(2, experiment_name='first')).train()
    cfg = adapt_config(4, experiment_name='second', resume=True)
    runner = build_runner(cfg)
    runner.train()
    assert runner.iter == 4
    model = runner.model.eval()
    scorer = CLIPScorer(weights=tmp_path / 'adapted')
    assert scorer.classes == ('dent', 'spot')
    crops = crops_of(tiny_data)
    batch = batch_of(crops)
    with torch.no_grad():
        expected = model(**batch, mode='predict')
        features = scorer.encoder.encode(batch['inputs'].float())
    found = scorer.distribution(features)
    overlaps = scorer.expected_overlap(features)
    for index, result in enumerate(expected):
        assert torch.allclose(found[index], result['probabilities'], atol=1e-4)
        assert float(overlaps[index]) == pytest.approx(float(result['expected_overlap']), abs=1e-4)
    # How right it was on held-out crops goes with it, unless it is asked something else.
    assert scorer.held_out.crops > 4 and 0 <= scorer.held_out.accuracy <= 1
    own = dict(dent='a hollow', spot='a stain')
    assert CLIPScorer(weights=tmp_path / 'adapted', prompts=own).held_out is None
    with pytest.raises(UserError, match='adapted CLIP model already'):
        build_runner(adapt_config(2, experiment_name='third')).train()
    with pytest.raises(UserError, match='not to'):
        CLIPScorer(classes=('rust',), weights=tmp_path / 'adapted')


def test_a_run_cut_before_its_export_still_says_how_right_the_model_is(adapt_config, tmp_path):
    build_runner(adapt_config(2, experiment_name='first')).train()
    expected = CLIPScorer(weights=tmp_path / 'adapted').held_out
    shutil.rmtree(tmp_path / 'adapted')
    build_runner(adapt_config(2, experiment_name='second', resume=True)).train()
    assert CLIPScorer(weights=tmp_path / 'adapted').held_out == expected


@pytest.mark.parametrize('workers', [0, 2])
def test_an_interrupted_run_learns_what_an_uninterrupted_one_does(adapt_config, tmp_path, workers):
    """Crops are varied alike, whether or not the process that cuts them started in between."""

    def run(name: str, **options) -> dict:
        cfg = adapt_config(4, experiment_name=f'{name}{workers}', **options)
        cfg.work_dir, cfg.custom_hooks[-1].out_dir = (str(tmp_path / name / n) for n in 'ab')
        cfg.train_dataloader.update(num_workers=workers, persistent_workers=workers > 0)
        build_runner(cfg).train()
        return torch.load(tmp_path / name / 'a/iter_4.pth', weights_only=True)['state_dict']

    whole = run('whole', **{'default_hooks.checkpoint.max_keep_ckpts': 2})
    first = str(tmp_path / 'whole/a/iter_2.pth')
    resumed = run('resumed', load_from=first, resume=True)
    before = torch.load(first, weights_only=True)['state_dict']
    assert any(not torch.equal(value, before[name]) for name, value in whole.items())
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, msg=name)


def test_the_table_of_scorers(tiny_data, tmp_path, monkeypatch, capsys):
    sys.path.insert(0, str(REPOSITORY / 'tools'))
    import evaluate_clip

    split = tiny_data / 'annotations' / '40pct_seed0'
    config = tmp_path / 'score.py'
    config.write_text(
        f"images_dir = '{tiny_data}/images'\n"
        f'tiny = {TINY_CLIP!r}\n'
        "scorers = dict(words=dict(type='mmdsym.CLIPScorer', "
        f"classes='{split}/burn_in.json', model=tiny))\n"
    )
    command = ['evaluate_clip.py', str(config), '--ann-file', str(split / 'calibration.json')]
    monkeypatch.setattr(sys, 'argv', [*command, '--out', str(tmp_path / 'table')])
    evaluate_clip.main()
    content = json.loads((tmp_path / 'table.json').read_text())
    assert content['crops']['dent'] == content['crops']['spot'] == 2
    assert 0 <= content['scorers']['words']['accuracy'] <= 1
    lines = (tmp_path / 'table.md').read_text().splitlines()
    assert lines[0].startswith('| scorer | accuracy | balanced | calibration error | dent | spot |')
    assert len({line.count('|') for line in lines}) == 1
    with pytest.raises(SystemExit):
        evaluate_clip.main()
    assert 'table.json exists' in capsys.readouterr().err
