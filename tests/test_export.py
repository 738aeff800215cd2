import json
import os
import subprocess
import sys
from copy import deepcopy

import numpy as np
import pytest
import torch
from conftest import call_tool
from mmcv import imwrite
from mmdet.apis import inference_detector, init_detector
from mmdet.registry import MODELS
from mmengine import Config
from mmengine.registry import init_default_scope

from mmdsym.errors import UserError
from mmdsym.export import export_detector
from mmdsym.test_images import paths_of_test_images
from mmdsym.trained_run import OWN_THRESHOLDS, find_checkpoint, load_run
from mmdsym.visualization.detections import thresholds_of

torch.set_num_threads(1)

CLASSES = ('crack', 'pit')
PREPROCESSOR = dict(
    type='DetDataPreprocessor',
    mean=[127.5] * 3,
    std=[127.5] * 3,
    bgr_to_rgb=True,
    pad_size_divisor=32,
)
NECK = dict(type='FPN', out_channels=16, start_level=0, add_extra_convs='on_output', num_outs=5)
# A threshold of 0 lets untrained detectors predict boxes to compare.
TEST_CFG = dict(
    nms_pre=50,
    min_bbox_size=0,
    score_thr=0.0,
    nms=dict(type='nms', iou_threshold=0.6),
    max_per_img=20,
)


def atss_on_timm():
    return dict(
        type='ATSS',
        data_preprocessor=PREPROCESSOR,
        backbone=dict(
            type='mmdsym.TimmBackbone',
            model_name='mobilenetv3_small_050',
            pretrained='timm',
        ),
        neck=dict(in_channels=[16, 24, 288], **NECK),
        bbox_head=dict(
            type='ATSSHead',
            num_classes=len(CLASSES),
            in_channels=16,
            feat_channels=64,
            stacked_convs=1,
            anchor_generator=dict(
                type='AnchorGenerator',
                ratios=[1.0],
                octave_base_scale=8,
                scales_per_octave=1,
                strides=[8, 16, 32, 64, 128],
            ),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        ),
        train_cfg=dict(assigner=dict(type='ATSSAssigner', topk=9), allowed_border=-1),
        test_cfg=TEST_CFG,
    )


def retinanet_of_mmdet():
    return dict(
        type='RetinaNet',
        data_preprocessor=PREPROCESSOR,
        backbone=dict(
            type='ResNet',
            depth=18,
            base_channels=8,
            out_indices=(1, 2, 3),
            init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18'),
        ),
        neck=dict(in_channels=[16, 32, 64], **NECK),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=len(CLASSES),
            in_channels=16,
            feat_channels=16,
            stacked_convs=1,
            anchor_generator=dict(
                type='AnchorGenerator',
                ratios=[1.0],
                octave_base_scale=4,
                scales_per_octave=1,
                strides=[8, 16, 32, 64, 128],
            ),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        ),
        test_cfg=TEST_CFG,
    )


def training_config(model, root):
    pipeline = [
        dict(type='mmdsym.LoadCachedImageFromFile', cache_megabytes=10),
        dict(type='Resize', scale=(96, 96), keep_ratio=True),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(
            type='PackDetInputs',
            meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
        ),
    ]
    dataset = dict(
        type='mmdsym.DefectDataset',
        data_root=str(root),
        ann_file='val.json',
        data_prefix=dict(img='images/'),
        test_mode=True,
        pipeline=pipeline,
    )
    loader = dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dataset,
    )
    return Config(
        dict(
            default_scope='mmdet',
            custom_imports=dict(imports=['mmdsym']),
            custom_hooks=[dict(type='mmdsym.TeacherUpdateHook')],
            model=model,
            train_dataloader=loader,
            test_dataloader=loader,
            test_evaluator=dict(type='CocoMetric', ann_file=str(root / 'val.json')),
        )
    )


def semi_supervised(detector, kind):
    if kind == 'mmdsym.DSYMDetector':
        return dict(type=kind, detector=detector)
    return dict(
        type=kind,
        detector=detector,
        semi_train_cfg=dict(freeze_teacher=True),
        semi_test_cfg=dict(predict_on='teacher'),
        data_preprocessor=dict(type='MultiBranchDataPreprocessor', data_preprocessor=PREPROCESSOR),
    )


def write_run(folder, model, root):
    """Leaves what a training run leaves: config, checkpoint, and the pointer to it."""
    config = training_config(model, root)
    folder.mkdir()
    init_default_scope('mmdet')
    torch.manual_seed(0)
    # Detectors write into the config that they are built from.
    network = MODELS.build(deepcopy(config.model))
    if hasattr(network, 'level_embed'):
        # Until it is initialised, Deformable DETR's parameter is what memory held.
        torch.nn.init.normal_(network.level_embed)
    # As after training: no two networks and no two classes alike.
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    (folder / 'tiny.py').write_text(config.pretty_text)
    checkpoint = dict(
        meta=dict(dataset_meta=dict(classes=CLASSES), iter=7, cfg='text'),
        state_dict=network.state_dict(),
        optimizer=dict(state={}),
        message_hub={},
    )
    torch.save(checkpoint, folder / 'iter_7.pth')
    # The place before the work directory was moved here.
    (folder / 'last_checkpoint').write_text('elsewhere/iter_7.pth')
    return folder


@pytest.fixture(scope='module')
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    noise = np.random.default_rng(0).integers(0, 256, (2, 80, 100, 3), dtype=np.uint8)
    for index, image in enumerate(noise):
        imwrite(image, str(root / 'images' / f'{index}.png'))
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES)]
    images = [dict(id=i, file_name=f'{i}.png', width=100, height=80) for i in range(2)]
    (root / 'val.json').write_text(
        json.dumps(dict(images=images, annotations=[], categories=categories))
    )
    return root


@pytest.fixture(scope='module')
def atss_run(tmp_path_factory, data_root):
    folder = tmp_path_factory.mktemp('runs') / 'atss'
    return write_run(folder, semi_supervised(atss_on_timm(), 'mmdsym.DSYMDetector'), data_root)


@pytest.fixture(scope='module')
def retinanet_run(tmp_path_factory, data_root):
    folder = tmp_path_factory.mktemp('runs') / 'retinanet'
    return write_run(folder, semi_supervised(retinanet_of_mmdet(), 'SoftTeacher'), data_root)


def wanted_prediction(run, which, image):
    """Predicts by the wrapper's own test path, independently of the export."""
    init_default_scope('mmdet')
    model = MODELS.build(run.config.model).eval()
    model.load_state_dict(run.checkpoint['state_dict'])
    model.semi_test_cfg['predict_on'] = which
    model.cfg = run.config
    return inference_detector(model, image).pred_instances


def all_types(node):
    if isinstance(node, dict):
        return {node.get('type')}.union(*map(all_types, node.values()))
    return set().union(*map(all_types, node)) if isinstance(node, (list, tuple)) else set()


@pytest.mark.parametrize('which', ['teacher', 'student'])
def test_exported_atss_on_timm_predicts_the_same(atss_run, data_root, tmp_path, which):
    run = load_run(atss_run)
    exported = export_detector(run, tmp_path, which)
    image = str(data_root / 'images' / '0.png')
    detector = init_detector(str(exported.config_path), str(exported.checkpoint_path), device='cpu')
    found = inference_detector(detector, image).pred_instances
    wanted = wanted_prediction(run, which, image)
    assert len(wanted) > 5
    torch.testing.assert_close(found.bboxes, wanted.bboxes)
    torch.testing.assert_close(found.scores, wanted.scores)
    assert torch.equal(found.labels, wanted.labels)
    assert detector.dataset_meta['classes'] == CLASSES
    assert exported.comparison.boxes > 5 and exported.comparison.images == 2
    config = Config.fromfile(exported.config_path)
    assert config.custom_imports.imports == ['mmdsym.models.timm_backbone']
    own = {t for t in all_types(config.to_dict()) if t and t.startswith('mmdsym.')}
    assert own == {'mmdsym.TimmBackbone'}
    assert config.model.backbone.pretrained is None
    assert config.test_dataloader.dataset.type == 'CocoDataset'
    checkpoint = torch.load(exported.checkpoint_path, weights_only=True)
    assert set(checkpoint) == {'state_dict', 'meta', OWN_THRESHOLDS}


def test_an_exported_detector_shows_boxes_from_the_calibrated_scores_on(retinanet_run, tmp_path):
    run = load_run(retinanet_run)
    exported = export_detector(run, tmp_path / 'uncalibrated')
    assert load_run(exported.checkpoint_path).own_thresholds is None
    run.checkpoint[OWN_THRESHOLDS] = [0.2, 0.6]
    exported = export_detector(run, tmp_path / 'calibrated', 'student')
    assert thresholds_of(load_run(exported.checkpoint_path)).tolist() == pytest.approx([0.2, 0.6])


def test_teacher_and_student_of_the_test_differ(atss_run, data_root):
    run, image = load_run(atss_run), str(data_root / 'images' / '0.png')
    teacher, student = (wanted_prediction(run, which, image) for which in ('teacher', 'student'))
    assert not torch.allclose(teacher.bboxes, student.bboxes, atol=1e-2)


WITHOUT_MMDSYM = """
import json, sys
sys.modules['mmdsym'] = None  # any import of it fails
import torch
torch.set_num_threads(1)
from mmdet.apis import inference_detector, init_detector
from mmengine import Config
detector = init_detector(sys.argv[1], sys.argv[2], device='cpu')
found = inference_detector(detector, sys.argv[3]).pred_instances
assert 'mmdsym' not in open(sys.argv[1]).read()
print(json.dumps([detector.dataset_meta['classes'], found.bboxes.tolist(), found.scores.tolist()]))
"""


def test_a_detector_of_mmdet_needs_no_mmdsym(retinanet_run, data_root, tmp_path):
    run = load_run(retinanet_run)
    exported = export_detector(run, tmp_path, 'teacher')
    image = str(data_root / 'images' / '1.png')
    files = [str(exported.config_path), str(exported.checkpoint_path), image]
    ran = subprocess.run(
        [sys.executable, '-c', WITHOUT_MMDSYM, *files],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    classes, boxes, scores = json.loads(ran.stdout.splitlines()[-1])
    wanted = wanted_prediction(run, 'teacher', image)
    assert tuple(classes) == CLASSES
    assert len(wanted) > 5
    torch.testing.assert_close(torch.tensor(boxes), wanted.bboxes, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(torch.tensor(scores), wanted.scores, atol=1e-4, rtol=1e-4)


def test_an_edited_test_pipeline_is_the_one_in_use(retinanet_run, tmp_path):
    exported = export_detector(load_run(retinanet_run), tmp_path)
    text = exported.config_path.read_text().replace('96', '64')
    exported.config_path.write_text(text)
    config = Config.fromfile(exported.config_path)
    assert config.test_dataloader.dataset.pipeline[1].scale == (64, 64)
    assert text.count("type='Resize'") == 1


def test_a_plain_checkpoint_passes_through(data_root, tmp_path):
    folder = write_run(tmp_path / 'plain', retinanet_of_mmdet(), data_root)
    exported = export_detector(load_run(folder), tmp_path / 'out')
    assert exported.config_path.name == 'tiny_detector.py'
    assert exported.comparison.boxes > 5


def test_without_test_images_noise_is_compared(retinanet_run, tmp_path):
    run = load_run(retinanet_run)
    run.config.test_dataloader.dataset.data_root = str(tmp_path / 'none')
    assert export_detector(run, tmp_path).comparison.random


def test_test_images_are_those_of_the_annotations(retinanet_run):
    run = load_run(retinanet_run)
    paths = paths_of_test_images(run.config, 1)
    assert len(paths) == 1 and paths[0].is_file()
    run.config.test_dataloader.dataset.ann_file = 'none.json'
    assert paths_of_test_images(run.config, 1) == []


def test_nothing_is_overwritten_unasked(retinanet_run, tmp_path):
    run = load_run(retinanet_run)
    kept = tmp_path / 'tiny_teacher.pth'
    kept.write_text('mine')
    with pytest.raises(UserError, match='--force'):
        export_detector(run, tmp_path)
    assert kept.read_text() == 'mine' and len(list(tmp_path.iterdir())) == 1
    export_detector(run, tmp_path, force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['tiny_teacher.pth', 'tiny_teacher.py']


def test_wrong_checkpoints_are_named(atss_run, retinanet_run, data_root, tmp_path):
    with pytest.raises(UserError, match=r'not a checkpoint of the detector.*--config'):
        export_detector(load_run(atss_run, retinanet_run / 'tiny.py'), tmp_path)
    plain = write_run(tmp_path / 'plain', retinanet_of_mmdet(), data_root)
    with pytest.raises(UserError, match='holds no teacher'):
        export_detector(load_run(plain, retinanet_run / 'tiny.py'), tmp_path)
    other = load_run(retinanet_run)
    other.checkpoint['meta']['dataset_meta']['classes'] = ('crack', 'pit', 'scratch')
    with pytest.raises(UserError, match='head for 2 classes'):
        export_detector(other, tmp_path)
    assert not list(tmp_path.glob('tiny*'))


def test_a_part_without_counterpart_is_named(retinanet_run, tmp_path):
    run = load_run(retinanet_run)
    run.config.test_dataloader.dataset.pipeline[1].type = 'mmdsym.Unheard'
    with pytest.raises(UserError, match=r'mmdsym\.Unheard'):
        export_detector(run, tmp_path)


def test_an_export_that_differs_is_not_written(retinanet_run, tmp_path, monkeypatch):
    run = load_run(retinanet_run)
    monkeypatch.setattr('mmdsym.export._plain_model', _with_other_normalisation)
    with pytest.raises(UserError, match='predicts other boxes'):
        export_detector(run, tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_box_above_the_threshold_is_no_proof(retinanet_run, tmp_path, monkeypatch):
    run = load_run(retinanet_run)
    run.config.model.detector.test_cfg.score_thr = 1.0
    exported = export_detector(run, tmp_path)
    assert exported.comparison.below_threshold and exported.comparison.boxes > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ['tiny_teacher.pth', 'tiny_teacher.py']
    assert 'score_thr=1.0' in exported.config_path.read_text()
    monkeypatch.setattr('mmdsym.export._plain_model', _with_other_normalisation)
    with pytest.raises(UserError, match='predicts other boxes'):
        export_detector(run, tmp_path / 'other')


def test_an_interrupted_export_leaves_nothing_that_looks_whole(
    retinanet_run, tmp_path, monkeypatch
):
    run = load_run(retinanet_run)
    export_detector(run, tmp_path)
    real, moved = os.replace, []

    def killed(draft, path):
        if moved:
            raise KeyboardInterrupt
        moved.append(path)
        real(draft, path)

    monkeypatch.setattr('mmdsym.export.os.replace', killed)
    with pytest.raises(KeyboardInterrupt):
        export_detector(run, tmp_path, force=True)
    # Not even an old checkpoint beside a new config.
    assert [path.name for path in tmp_path.iterdir()] == ['tiny_teacher.py']


def test_what_killed_exports_left_is_removed(retinanet_run, tmp_path):
    dead = subprocess.Popen([sys.executable, '-c', ''])
    dead.wait()
    left = tmp_path / f'.unfinished-{dead.pid}-abc'
    (left / 'deep').mkdir(parents=True)
    alive = tmp_path / f'.unfinished-{os.getppid()}-abc'
    alive.mkdir()
    export_detector(load_run(retinanet_run), tmp_path)
    assert not left.exists() and alive.exists()


def _with_other_normalisation(model, config_path):
    return dict(model['detector'], data_preprocessor=dict(PREPROCESSOR, std=[60.0] * 3))


def test_runs_are_found_or_the_lack_is_named(atss_run, tmp_path):
    assert find_checkpoint(atss_run) == atss_run / 'iter_7.pth'
    with pytest.raises(UserError, match='does not exist'):
        find_checkpoint(tmp_path / 'none')
    with pytest.raises(UserError, match='no checkpoint'):
        find_checkpoint(tmp_path)
    for name in ('iter_900.pth', 'iter_1000.pth', 'best.pth'):
        (tmp_path / name).write_bytes(b'')
    assert find_checkpoint(tmp_path) == tmp_path / 'iter_1000.pth'
    # A copy of a run is a run of its own, even while the original is there.
    copied = tmp_path / 'copied'
    copied.mkdir()
    (copied / 'iter_3.pth').write_bytes(b'')
    (tmp_path / 'iter_3.pth').write_bytes(b'')
    (copied / 'last_checkpoint').write_text(str(tmp_path / 'iter_3.pth'))
    assert find_checkpoint(copied) == copied / 'iter_3.pth'
    with pytest.raises(UserError, match='--config'):
        load_run(tmp_path)
    with pytest.raises(UserError, match='cannot be read'):
        load_run(tmp_path, atss_run / 'tiny.py')
    torch.save(dict(weights=torch.zeros(1)), tmp_path / 'iter_1000.pth')
    with pytest.raises(UserError, match='no state_dict'):
        load_run(tmp_path, atss_run / 'tiny.py')


def test_the_command_says_what_it_wrote_and_proved(atss_run, tmp_path, monkeypatch, capsys):
    call_tool(monkeypatch, 'export_detector.py', atss_run, '--out', tmp_path)
    printed = capsys.readouterr().out
    assert str(tmp_path / 'tiny_teacher.pth') in printed
    assert '40 boxes on 2 test images' in printed


def test_the_command_prints_one_line_for_a_user_error(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match='2'):
        call_tool(monkeypatch, 'export_detector.py', tmp_path / 'none', '--out', tmp_path)
    assert capsys.readouterr().err.count('\n') == 1
