"""A supervised run of equal length beside teacher and student, and what lies between both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from test_training import STAGES
from test_whole_run import interrupted
from whole_run_data import write_configs

from mmdsym.config import complete_config
from mmdsym.errors import UserError
from mmdsym.pipeline.baseline import baseline_config, difference
from mmdsym.pipeline.whole_run import WholeRun


def load(leaf: Path, **options) -> Config:
    cfg = Config.fromfile(leaf)
    cfg.work_dir = str(leaf.parent / 'run')
    cfg.merge_from_dict(options)
    return cfg


@pytest.fixture
def leaf(tiny_data, tmp_path) -> Path:
    return write_configs(tmp_path, tiny_data)


def test_it_trains_the_same_detector_as_long_on_all_labels_and_on_nothing_else(leaf):
    cfg = complete_config(load(leaf))
    baseline = complete_config(baseline_config(cfg))
    assert baseline.model == cfg.model.detector
    assert baseline.optim_wrapper == cfg.optim_wrapper
    assert baseline.param_scheduler == cfg.param_scheduler
    assert baseline.randomness == cfg.randomness
    assert baseline.val_dataloader == cfg.val_dataloader
    (stage,) = baseline.train_cfg.stages.values()
    # As many iterations, and the largest supervised batch: refine's 1 labelled, 1 synthetic and
    # 1 calibration image.
    assert stage == dict(begin=0, end=8, images=dict(labelled=3))
    (source,) = baseline.train_dataloader.dataset.sources.values()
    assert source.ann_file.endswith('40pct_seed0/labelled.json')
    own = cfg.train_dataloader.dataset.sources.labelled.pipeline
    assert source.pipeline[:-1] == own[:-1]
    assert source.pipeline[-1] == own[-1].sup
    assert baseline.work_dir == f'{cfg.work_dir}/baseline'
    # What teacher, CLIP and diffusion need is not left anywhere that is built.
    text = Config({key: baseline[key] for key in ('model', 'custom_hooks', 'train_dataloader')})
    for word in ('Teacher', 'Stage', 'CLIP', 'Diffusion', 'unlabelled', 'burn_in'):
        assert f"'{word}" not in text.pretty_text.replace('StagedBatch', '').replace('StagedS', '')
    assert 'parts' not in baseline
    assert cfg.model.type == 'mmdsym.DSYMDetector', 'the config of the run stays as it is'


def test_the_learning_rate_of_both_is_scaled_alike(leaf):
    scaling = dict(enable=True, base_batch_size=16)
    cfg = complete_config(load(leaf, auto_scale_lr=scaling))
    largest = max(sum(stage.images.values()) for stage in cfg.train_cfg.stages.values())
    baseline = baseline_config(cfg)
    assert 3 / baseline.auto_scale_lr.base_batch_size == pytest.approx(largest / 16)
    assert cfg.auto_scale_lr.base_batch_size == 16


def test_a_plan_names_its_steps_and_writes_nothing(leaf):
    before = sorted(leaf.parent.rglob('*'))
    table = WholeRun(load(leaf), with_baseline=True).plan()
    assert sorted(leaf.parent.rglob('*')) == before
    rows = [line.split('|')[1].strip() for line in table.splitlines() if line.startswith('|')]
    place = rows.index('baseline: stage supervised')
    assert rows[place - 1] == 'stage refine'
    assert rows[place + 1] == 'baseline: test of detector'
    assert rows.index('test of teacher and student') > place
    assert 'baseline' not in WholeRun(load(leaf)).plan()


def test_configs_without_a_teacher_are_refused(tiny_config, tmp_path):
    cfg = tiny_config('baselines/supervised_neu_40pct.py')
    cfg.work_dir = str(tmp_path)
    with pytest.raises(UserError, match='does not train teacher and student.*--with-baseline'):
        WholeRun(cfg, with_baseline=True)


def test_a_split_without_a_file_of_all_labels_is_refused(leaf):
    (leaf.parent / 'data/annotations/40pct_seed0/labelled.json').unlink()
    with pytest.raises(UserError, match='labelled.json, which holds all labelled images'):
        WholeRun(load(leaf), with_baseline=True)


@pytest.mark.parametrize(
    ('own', 'other', 'words'),
    [
        (0.75, 0.7, r'+5.0 points of mAP@0.5 (75.0 % against 70.0 %)'),
        (0.688, 0.7, r'-1.2 points'),
        (0.75, -1.0, 'unknown'),
        (None, 0.7, 'unknown'),
    ],
)
def test_the_difference_is_teacher_minus_baseline(tmp_path, own, other, words):
    (tmp_path / 'baseline').mkdir()
    for folder, network, value in (('', 'teacher', own), ('baseline', 'detector', other)):
        if value is not None:
            metrics = {network: {'coco/bbox_mAP_50': value}}
            (tmp_path / folder / 'results.json').write_text(json.dumps(dict(metrics=metrics)))
    assert words in difference(tmp_path, 'teacher')


@pytest.fixture
def small(tiny_config, tmp_path):
    """Returns a function that starts a run of nine iterations without parts, with a baseline."""
    starts = []

    def start(interrupt_baseline_after: int | None = None, report: bool = False) -> WholeRun:
        cfg = tiny_config('baselines/teacher_student_neu_40pct.py', image_size=(64, 64))
        cfg.work_dir = str(tmp_path / 'run')
        cfg.train_cfg.update(stages=STAGES, val_interval=100)
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            loader.update(num_workers=0, persistent_workers=False)
        cfg.model.detector.backbone.pretrained = None
        cfg.model.detector.test_cfg.update(score_thr=0.0, max_per_img=5)
        cfg.param_scheduler = []
        cfg.default_hooks.logger.interval = 1
        cfg.default_hooks.checkpoint.interval = 3
        cfg.visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
        cfg.experiment_name = f'{tmp_path.name}_{len(starts)}'
        cfg.after_training = dict(report=report)
        run = WholeRun(cfg, with_baseline=True)
        starts.append(run)
        with interrupted(interrupt_baseline_after, 'baseline'):
            run.execute()
        return run

    yield start
    DefaultScope._instance_dict.clear()


def test_it_goes_on_where_it_was_and_is_used_again(small, tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        small(interrupt_baseline_after=4)
    assert (tmp_path / 'run/iter_9.pth').is_file()
    assert [path.name for path in tmp_path.glob('run/baseline/*.pth')] == ['iter_3.pth']
    assert '[2/4] baseline: training: begins' in capsys.readouterr().out

    small(report=True)
    told = capsys.readouterr().out
    assert '[1/5] training: found, 9 iterations' in told
    assert '[2/5] baseline: training: goes on from' in told and 'iter_3.pth' in told
    assert '[5/5] teacher minus supervised baseline: ' in told and 'points of mAP@0.5' in told
    results = json.loads((tmp_path / 'run/baseline/results.json').read_text())
    assert results['iteration'] == 9 and set(results['metrics']) == {'detector'}
    page = (tmp_path / 'run/report/index.html').read_text()
    assert 'supervised run run/baseline' in page and 'trained on labelled.json' in page
    assert 'Judged on the calibration images' in page

    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*') if path.is_file()}
    small(report=True)
    told = capsys.readouterr().out
    assert 'baseline: training: found' in told and 'baseline: test: found' in told
    assert 'report: found' in told and 'teacher minus supervised baseline' in told
    left = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*') if path.is_file()}
    assert left == files


def test_other_labels_for_the_baseline_alone_are_refused(small, tmp_path, tiny_config):
    with pytest.raises(KeyboardInterrupt):
        small(interrupt_baseline_after=4)
    record = tmp_path / 'run/baseline/run.json'
    content = json.loads(record.read_text())
    name = next(n for n in content['settings'] if n.endswith('labelled.ann_file'))
    content['settings'][name] = 'another digest'
    record.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r'run/baseline holds a run with other settings or data'):
        small()
