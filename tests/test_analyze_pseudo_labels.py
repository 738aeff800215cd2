"""The tool from checkpoint to table; foreign pools; and that truth is read last."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import init_default_scope
from PIL import Image
from test_filter_hook import BrightnessScorer

from mmdsym.clip import pseudo_label_analysis as analysis_module
from mmdsym.config import complete_config
from mmdsym.errors import UserError
from mmdsym.evaluation.foreign_pool import images_in, make_foreign_pool
from mmdsym.evaluation.foreign_removal import PassedBoxes, measure_removal
from mmdsym.models import fuse_views

SPLIT = 'annotations/40pct_seed0'


@pytest.fixture
def checkpoint(tiny_config, tmp_path):
    """An untrained detector's checkpoint and config, as a run leaves them."""
    cfg = tiny_config('baselines/supervised_neu_40pct.py')
    cfg.model.backbone.pretrained = None
    cfg.model.test_cfg.update(score_thr=0.0, max_per_img=6)
    train = cfg.train_dataloader.dataset
    train.ann_file = train.ann_file.replace('labelled.json', 'burn_in.json')
    cfg = complete_config(cfg)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MMENGINE_MODELS.build(cfg.model)
    path = tmp_path / 'run/iter_1.pth'
    path.parent.mkdir()
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, path)
    cfg.dump(path.parent / 'config.py')
    return path


@pytest.fixture
def analyze(monkeypatch, tiny_data, tmp_path):
    """Runs the tool with a scorer that needs no weights."""

    def run(checkpoint: Path, *options: str, truth: Path = tiny_data / 'annotations/train.json'):
        build = analysis_module.build_scorer
        monkeypatch.setattr(
            analysis_module,
            'build_scorer',
            lambda scorer, classes: build(BrightnessScorer(classes), classes),
        )
        arguments = [
            'analyze_pseudo_labels.py', str(checkpoint),
            '--ann', str(tiny_data / SPLIT / 'unlabelled.json'),
            '--truth', str(truth), '--out', str(tmp_path / 'out'), *options,
        ]  # fmt: skip
        monkeypatch.setattr(sys, 'argv', arguments)
        runpy.run_path(str(REPOSITORY / 'tools/analyze_pseudo_labels.py'), run_name='__main__')
        return json.loads((tmp_path / 'out/pseudo_labels.json').read_text())

    return run


def test_from_checkpoint_to_table(analyze, checkpoint, tmp_path, capsys):
    foreign = tmp_path / 'foreign'
    options = ('--ablation', '--foreign', str(foreign), '--make-foreign', '3')
    content = analyze(checkpoint, *options)
    scores = {row['score'] for row in content['rows']}
    added = {
        'teacher+context',
        'teacher+cluster',
        'teacher+stability',
        'boxes alone',
        'boxes+stability',
        'teacher+class',
        'teacher+image gate',
        'without veto',
    }
    assert scores == {'teacher', 'clip', 'fused'} | added
    assert content['images'] == 4 and content['foreign_images'] == 3
    assert set(content['foreign']) == {'fused'} | added
    assert len(images_in(foreign)) == 3
    printed = capsys.readouterr().out
    assert '| all | fused |' in printed and 'removed at 5 % cost' in printed
    assert 'warning' not in printed
    with pytest.raises(SystemExit):
        analyze(checkpoint)
    assert '--force' in capsys.readouterr().err


def test_scores_do_not_depend_on_the_truth(analyze, checkpoint, tiny_data, tmp_path, monkeypatch):
    """Whatever the truth says, the scores are the same: it is read when they are fixed."""
    seen = []
    measure = analysis_module.Analysis.measure

    def record(self, pool, *rest):
        seen.append({name: torch.cat(parts) for name, parts in pool.scores.items()})
        return measure(self, pool, *rest)

    monkeypatch.setattr(analysis_module.Analysis, 'measure', record)
    truth = json.loads((tiny_data / 'annotations/train.json').read_text())
    for entry in truth['annotations']:
        entry['bbox'] = [0, 0, 5, 5]
    other = tmp_path / 'other.json'
    other.write_text(json.dumps(truth))
    analyze(checkpoint)
    analyze(checkpoint, '--force', truth=other)
    assert seen[0].keys() == seen[1].keys()
    for name, scores in seen[0].items():
        assert torch.equal(scores, seen[1][name]), name


def test_a_run_that_saw_the_calibration_images_is_told(analyze, checkpoint, capsys):
    config = checkpoint.parent / 'config.py'
    config.write_text(config.read_text().replace('burn_in.json', 'labelled.json'))
    analyze(checkpoint)
    assert 'warning: this run trains on calibration images' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        (('--calibration', 'nowhere.json'), 'nowhere.json does not exist'),
        (('--make-foreign', '3'), 'add --foreign FOLDER'),
        (('--precision', '80'), '--precision 80.0 is no share'),
        (('--limit', '0'), '--limit 0 leaves no image'),
    ],
)
def test_what_cannot_work_is_refused_at_once(analyze, checkpoint, capsys, options, sentence):
    with pytest.raises(SystemExit):
        analyze(checkpoint, *options)
    assert sentence in capsys.readouterr().err


def test_a_limit_is_kept(analyze, checkpoint):
    assert analyze(checkpoint, '--limit', '3')['images'] == 3


def test_boxes_of_two_views_are_fused(analyze, checkpoint, monkeypatch):
    pools = []
    score = analysis_module.Analysis.score

    def noted(self, pool):
        pools.append(pool)
        score(self, pool)

    monkeypatch.setattr(analysis_module.Analysis, 'score', noted)
    plain, fused = analyze(checkpoint), analyze(checkpoint, '--fuse-views', '--force')
    assert (plain['views_fused'], fused['views_fused']) == (1, 2)
    before, _, after, _ = (pool.predictions for pool in pools)
    assert len(before) == len(after) == 4
    for one, other in zip(before, after, strict=True):
        (view,) = other.metainfo['views']
        torch.testing.assert_close(other.bboxes, fuse_views([one, view]).bboxes)
        assert len(other) > len(one) and 'candidates' in other.metainfo


def test_a_damaged_image_is_named(analyze, checkpoint, tiny_data, tmp_path, capsys):
    images = tmp_path / 'images'
    shutil.copytree(tiny_data / 'images', images)
    (images / '007.png').write_bytes(b'no picture')
    with pytest.raises(SystemExit):
        analyze(checkpoint, '--images', str(images))
    assert '007.png cannot be read' in capsys.readouterr().err.splitlines()[-1]


def test_an_empty_pool_has_empty_tables(analyze, checkpoint, tiny_data, tmp_path):
    content = json.loads((tiny_data / SPLIT / 'unlabelled.json').read_text())
    nothing = tmp_path / 'nothing.json'
    nothing.write_text(json.dumps({**content, 'images': []}))
    split = tiny_data / SPLIT
    options = ['--ann', str(nothing), '--images', str(tiny_data / 'images')]
    for name in ('calibration', 'burn_in'):
        options += [f'--{dict(burn_in="labelled").get(name, name)}', str(split / f'{name}.json')]
    found = analyze(checkpoint, *options)
    assert found['images'] == 0 and all(row['found_boxes'] == 0 for row in found['rows'])


def test_a_foreign_pool_holds_no_labelled_defect(tiny_data, tmp_path):
    extra = tmp_path / 'extra'
    extra.mkdir()
    Image.fromarray(np.arange(900, dtype=np.uint8).reshape(30, 30)).save(extra / 'a.png')
    labelled = tiny_data / SPLIT / 'labelled.json'
    images = tiny_data / 'images'
    found = make_foreign_pool(tmp_path / 'pool', 9, labelled, images, extra)
    assert len(found) == 9
    kinds = {path.name.split('_')[0] for path in found}
    assert kinds == {'clean', 'steel', 'texture', 'extra'}
    for path in found:
        pixels = np.asarray(Image.open(path))
        assert pixels.shape == (64, 64)
        if path.name.startswith('clean'):
            # The tiny data's defects are 70 grey levels off, its surface has a spread of 6.
            assert abs(pixels.astype(float) - 110).max() < 45
    with pytest.raises(UserError, match='pool exists'):
        make_foreign_pool(tmp_path / 'pool', 9, labelled, images)
    assert not list(tmp_path.glob('.unfinished_*'))


def test_images_without_clean_surface_are_told(tiny_data, tmp_path):
    content = json.loads((tiny_data / SPLIT / 'labelled.json').read_text())
    for entry in content['annotations']:
        entry['bbox'] = [0, 0, 64, 64]
    full = tmp_path / 'full.json'
    full.write_text(json.dumps(content))
    with pytest.raises(UserError, match='no image with clean surface'):
        make_foreign_pool(tmp_path / 'pool', 2, full, tiny_data / 'images')
    shutil.rmtree(tmp_path / 'nothing', ignore_errors=True)
    with pytest.raises(UserError, match='holds no image'):
        images_in(tmp_path / 'nothing')


def test_removal_counts_what_the_teacher_lets_pass():
    labels = np.array([0, 0, 1, 1])
    thresholds = (np.array([0.5, 0.8]), np.array([0.5, 0.5]))
    foreign = PassedBoxes.select(
        np.array([0.9, 0.4, 0.9, 0.7]), np.array([0.1, 0.9, 0.6, 0.1]), labels, *thresholds
    )
    assert foreign.fused.tolist() == [0.1, 0.6] and foreign.passes.tolist() == [False, True]
    true = PassedBoxes(np.linspace(0.2, 1, 40), np.linspace(0.2, 1, 40) >= 0.5)
    removal = measure_removal(foreign, true)
    assert (removal.foreign_boxes, removal.true_boxes, removal.removed) == (2, 40, 0.5)
    assert removal.cost == pytest.approx(15 / 40)
    assert removal.removed_at_allowed_cost == 0.5
    nothing = PassedBoxes(np.zeros(0), np.zeros(0, dtype=bool))
    assert np.isnan(measure_removal(nothing, nothing).removed)
