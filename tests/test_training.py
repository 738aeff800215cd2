"""Real runs on tiny data: all stages, resume, test, and what happens when something is wrong."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS, DefaultScope

from mmdsym.engine import DSYMRunner
from mmdsym.errors import UserError, own_words

STAGES = dict(
    burn_in=dict(begin=0, end=3, images=dict(labelled=2)),
    joint=dict(
        begin=3,
        end=7,
        images=dict(labelled=2, unlabelled=2),
        # Every box of an untrained teacher is kept, so that the unsupervised loss is real.
        thresholds=dict(keep=0.0, drop=0.0),
    ),
    refine=dict(
        begin=7,
        end=9,
        images=dict(labelled=1, calibration=1, unlabelled=2),
        thresholds=dict(target_precision=0.5),
    ),
)


@pytest.fixture
def tiny_run(tiny_config, tmp_path):
    """Returns a function that builds a runner of nine iterations."""

    def build(work_dir: Path = tmp_path / 'run', **options) -> DSYMRunner:
        cfg = tiny_config('baselines/teacher_student_neu_40pct.py', **options)
        cfg.work_dir = str(work_dir)
        cfg.train_cfg = dict(type='mmdsym.StagedTrainLoop', stages=STAGES, val_interval=100)
        cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
        cfg.val_dataloader.update(num_workers=0, persistent_workers=False)
        cfg.test_dataloader = cfg.val_dataloader
        cfg.model.detector.test_cfg.score_thr = 0.0
        cfg.model.detector.test_cfg.max_per_img = 5
        cfg.model.detector.backbone.pretrained = None
        cfg.param_scheduler = [
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end='burn_in')
        ]
        cfg.default_hooks.logger.interval = 1
        cfg.default_hooks.checkpoint.update(interval=3, max_keep_ckpts=-1)
        cfg.custom_hooks[-1].interval = 2
        cfg.visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
        cfg.experiment_name = f'tiny_{work_dir.parent.name}_{work_dir.name}_{len(options)}'
        for key, value in options.items():
            cfg.merge_from_dict({key: value})
        return RUNNERS.build(cfg)

    yield build
    DefaultScope._instance_dict.clear()


def scalars(work_dir: Path) -> list[dict]:
    lines = []
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        lines += [json.loads(line) for line in path.read_text().splitlines()]
    return lines


def losses(work_dir: Path) -> dict[int, float]:
    return {line['step']: line['loss'] for line in scalars(work_dir) if 'loss' in line}


def test_all_stages_then_resume_ends_the_same(tiny_run, tmp_path):
    whole = tmp_path / 'whole'
    runner = tiny_run(whole)
    runner.train()
    log = next(whole.glob('*/*.log')).read_text()
    for stage in STAGES:
        assert f"Stage '{stage}' begins" in log
    assert log.count("The teacher starts as the student's copy") == 1
    assert re.search(r'Iter\(train\) \[9/9\].*eta: 0:00:00', log)
    assert 'Pseudo-boxes per unlabelled image' in log
    # Each stage border is followed by a validation of both networks, and the end by one.
    # Before there is a teacher, checkpoints have the student twice; later they differ.
    for name, alike in (('iter_3.pth', True), ('iter_9.pth', False)):
        state = torch.load(whole / name, weights_only=True)['state_dict']
        students = [key for key in state if key.startswith('student.')]
        same = [torch.equal(state[key], state[f'teacher.{key[8:]}']) for key in students]
        assert all(same) == alike, name
    evaluated = [line['step'] for line in scalars(whole) if 'teacher/coco/bbox_mAP_50' in line]
    assert evaluated == [3, 7, 9]
    unsupervised = [line for line in scalars(whole) if 'unsup_loss_cls' in line]
    assert min(line['step'] for line in unsupervised) == 4

    resumed = tmp_path / 'resumed'
    resumed.mkdir()
    again = tiny_run(resumed, load_from=str(whole / 'iter_6.pth'), resume=True)
    again.train()
    assert "Stage 'joint' goes on at iteration 6 of 7" in next(resumed.glob('*/*.log')).read_text()
    first, second = losses(whole), losses(resumed)
    assert sorted(second) == [7, 8, 9]
    for step, loss in second.items():
        assert loss == pytest.approx(first[step], rel=1e-4), step
    one = torch.load(whole / 'iter_9.pth', weights_only=True)['state_dict']
    other = torch.load(resumed / 'iter_9.pth', weights_only=True)['state_dict']
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-3, atol=1e-5, msg=name)


def test_a_checkpoint_is_tested_on_teacher_and_student(tiny_run, tmp_path):
    runner = tiny_run(tmp_path / 'train')
    runner.train()
    checkpoint = str(tmp_path / 'train/iter_9.pth')
    results = {}
    for network in ('teacher', 'student'):
        runner = tiny_run(
            tmp_path / network,
            load_from=checkpoint,
            **{'model.semi_test_cfg': dict(predict_on=network)},
        )
        results[network] = runner.test()
        assert 'coco/bbox_mAP_50' in results[network]
    logged = [line for line in scalars(tmp_path / 'train') if 'teacher/coco/bbox_mAP_50' in line]
    for network, metrics in results.items():
        expected = logged[-1][f'{network}/coco/bbox_mAP_50']
        assert metrics['coco/bbox_mAP_50'] == pytest.approx(expected, abs=1e-6)


def test_a_test_leaves_the_config_of_the_run_alone(tiny_run, tmp_path):
    folder = tmp_path / 'run'
    tiny_run(folder)
    assert not list(folder.glob('*.py')), 'nothing was trained yet'
    runner = tiny_run(folder)
    runner._write_config()
    (config,) = folder.glob('*.py')
    before = config.read_bytes()
    again = tiny_run(folder, image_size=(96, 96))
    again.dump_config()
    assert config.read_bytes() == before
    again.keep_in_config(resume=False, load_from='weights.pth')
    again.cfg.update(resume=True, load_from='iter_5.pth')
    again._write_config()
    written = Config.fromfile(config)
    assert (written.resume, written.load_from) == (False, 'weights.pth')
    assert tuple(written.image_size) == (96, 96)


def test_a_checkpoint_of_another_detector_is_refused(tiny_run, tmp_path):
    path = tmp_path / 'other.pth'
    torch.save({'state_dict': {'backbone.conv.weight': torch.zeros(3)}, 'meta': {}}, path)
    with pytest.raises(UserError, match='other.pth belongs to another detector'):
        tiny_run(load_from=str(path)).train()
    with pytest.raises(UserError, match='other.pth belongs to another detector'):
        tiny_run(tmp_path / 'test', load_from=str(path)).test()


def test_a_checkpoint_with_other_classes_may_start_a_run_but_not_be_tested(tiny_run, tmp_path):
    runner = tiny_run(tmp_path / 'first')
    state = runner.model.student.state_dict()
    state['bbox_head.atss_cls.weight'] = torch.zeros(9, 96, 3, 3)
    path = tmp_path / 'other_classes.pth'
    torch.save({'state_dict': state, 'meta': {}}, path)
    tiny_run(tmp_path / 'start', load_from=str(path)).load_checkpoint(str(path))
    with pytest.raises(UserError, match=r'\(2 tensors of the model.*atss_cls.weight'):
        tiny_run(tmp_path / 'test', load_from=str(path)).test()


def test_a_torn_checkpoint_and_a_missing_one_are_named(tiny_run, tmp_path):
    path = tmp_path / 'torn.pth'
    path.write_bytes(b'PK\x03\x04 not all of it')
    with pytest.raises(UserError, match='torn.pth cannot be read'):
        tiny_run(load_from=str(path)).train()
    with pytest.raises(UserError, match='there is no checkpoint'):
        tiny_run(tmp_path / 'b', load_from=str(tmp_path / 'missing.pth')).train()


@pytest.mark.parametrize('workers', [0, 1])
def test_an_image_that_cannot_be_read_is_named(tiny_run, tiny_data, tmp_path, workers):
    data = tmp_path / 'data'
    shutil.copytree(tiny_data, data)
    for path in (data / 'images').glob('00[0-3].png'):
        path.write_bytes(path.read_bytes()[:40])
    runner = tiny_run(data_root=f'{data}/', **{'train_dataloader.num_workers': workers})
    with pytest.raises(UserError) as caught:
        runner.train()
    sentence = r'image .*00\d.png cannot be read.*--fix.*--resume'
    assert re.fullmatch(sentence + '.*', own_words(caught.value))


def test_a_joint_stage_without_thresholds_is_refused(tiny_run):
    runner = tiny_run()
    runner._hooks = [h for h in runner._hooks if type(h).__name__ != 'ThresholdCalibrationHook']
    with pytest.raises(UserError, match='add mmdsym.ThresholdCalibrationHook'):
        runner.train()
