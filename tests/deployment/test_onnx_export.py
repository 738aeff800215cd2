"""Detectors as ONNX files: the same boxes in every runtime, or no file and a reason."""

import json
import sys
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import tiny_detectors
import torch
from conftest import call_tool
from mmdet.registry import MODELS
from test_export import CLASSES, data_root, semi_supervised, write_run  # noqa: F401

from mmdsym.deployment.contract import METADATA_KEY, read_resize
from mmdsym.deployment.frames import read_frames
from mmdsym.deployment.matching import Cuts, Found, compare
from mmdsym.deployment.onnx_export import export_onnx
from mmdsym.deployment.parity import check_parity
from mmdsym.deployment.runtimes import OpenVino
from mmdsym.deployment.same_padding import fix_same_padding
from mmdsym.deployment.suppression import NO_SCORE, Boxes, Suppression
from mmdsym.errors import UserError
from mmdsym.export import build_plain_detector
from mmdsym.trained_run import dataset_for_testing, load_run

torch.set_num_threads(1)

KINDS = ('atss', 'retinanet', 'fcos', 'rtmdet', 'faster_rcnn')


@pytest.fixture(scope='module')
def runs(tmp_path_factory, data_root):  # noqa: F811
    """Returns a function that gives the run of a kind of detector, made once."""
    made = {}

    def run_of(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp('runs') / kind
            made[kind] = write_run(folder, getattr(tiny_detectors, kind)(), data_root)
        return load_run(made[kind])

    return run_of


def contract_of(path):
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return session, json.loads(session.get_modelmeta().custom_metadata_map[METADATA_KEY])


@pytest.mark.parametrize('kind', KINDS)
def test_onnx_runtime_and_openvino_find_the_same_boxes(kind, runs, tmp_path):
    run = runs(kind)
    exported = export_onnx(run, tmp_path)
    assert exported.real and exported.size is None
    # Two images, a cropped one, and a batch of two.
    assert exported.parity.images == 5
    assert exported.parity.boxes > 40
    detector = build_plain_detector(run)
    frames, _ = read_frames(detector.cfg, 2)
    runtime = OpenVino(exported.path, threads=1)
    assert check_parity(detector, runtime, frames, exported.contract, True).boxes > 40
    session, _ = contract_of(exported.path)
    batch, channels, height, width = session.get_inputs()[0].shape
    assert channels == 3 and not {type(batch), type(height), type(width)} & {int}


@pytest.mark.parametrize('kind', ['retinanet', 'faster_rcnn'])
def test_boxes_before_suppression_become_the_same_boxes(kind, runs, tmp_path):
    exported = export_onnx(runs(kind), tmp_path, suppress=False)
    assert exported.path.name == 'tiny_detector_raw.onnx'
    assert exported.parity.boxes > 40
    session, contract = contract_of(exported.path)
    assert contract['suppression']['inside'] is False
    boxes, scores, _ = session.run(None, {'image': np.zeros((1, 3, 96, 96), np.uint8)})
    assert boxes.shape[1] == scores.shape[1] > contract['suppression']['max_boxes']


def test_levels_are_cut_as_in_mmdetection(runs, tmp_path):
    run = runs('atss')
    run.config.model.test_cfg.nms_pre = 4
    # Five images, four levels.
    assert 20 < export_onnx(run, tmp_path).parity.boxes <= 5 * 4 * 4


def test_a_threshold_and_one_suppression_for_all_classes(runs, tmp_path):
    run = runs('retinanet')
    every = export_onnx(run, tmp_path / 'every').parity.boxes
    test_cfg = run.config.model.test_cfg
    test_cfg.score_thr = 0.5
    test_cfg.nms = dict(type='nms', iou_threshold=0.3, class_agnostic=True)
    exported = export_onnx(run, tmp_path / 'some')
    assert 0 < exported.parity.boxes < every
    rule = contract_of(exported.path)[1]['suppression']
    assert rule == dict(inside=True, iou_threshold=0.3, class_agnostic=True, max_boxes=50)


def test_a_fixed_size_is_written_into_the_file(runs, tmp_path):
    exported = export_onnx(runs('retinanet'), tmp_path, fixed_size=True)
    session, _ = contract_of(exported.path)
    # 100x80 pixels on a bound of 96.
    assert exported.size == (96, 77)
    assert session.get_inputs()[0].shape == [1, 3, 77, 96]


def test_the_file_says_what_a_runtime_must_know(runs, tmp_path):
    run = runs('retinanet')
    _, contract = contract_of(export_onnx(run, tmp_path).path)
    assert contract['classes'] == list(CLASSES)
    assert contract['resize']['width'] == 96 and contract['resize']['keep_ratio'] is True
    assert contract['score_threshold'] == 0.0
    assert contract['show_from_score'] == [0.3] * len(CLASSES)
    assert contract['exported_from'] == 'iter_7.pth, detector'


def test_the_teacher_is_taken_by_default(tmp_path, data_root):  # noqa: F811
    pair = semi_supervised(tiny_detectors.retinanet(), 'mmdsym.DSYMDetector')
    run = load_run(write_run(tmp_path / 'pair', pair, data_root))
    teacher, student = (export_onnx(run, tmp_path, which) for which in ('teacher', 'student'))
    assert (teacher.path.name, student.path.name) == ('tiny_teacher.onnx', 'tiny_student.onnx')
    pixels = {'image': np.full((1, 3, 96, 96), 90, np.uint8)}
    scores = [
        contract_of(export.path)[0].run(['scores'], pixels)[0] for export in (teacher, student)
    ]
    assert not np.allclose(*scores)


def test_nothing_is_overwritten_unasked(runs, tmp_path, monkeypatch, capsys):
    kept = tmp_path / 'tiny_detector_raw.onnx'
    kept.write_text('mine')
    folder = runs('retinanet').checkpoint_path.parent
    # The other file is not written either.
    with pytest.raises(SystemExit, match='2'):
        call_tool(
            monkeypatch, 'export_detector.py', folder, '--out', tmp_path, '--onnx', '--onnx-raw'
        )
    assert '--force' in capsys.readouterr().err
    assert kept.read_text() == 'mine' and list(tmp_path.iterdir()) == [kept]
    call_tool(
        monkeypatch,
        'export_detector.py',
        folder,
        '--out',
        tmp_path,
        '--onnx',
        '--onnx-raw',
        '--force',
    )
    printed = capsys.readouterr().out
    assert printed.count('ONNX Runtime against PyTorch') == 2
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ['tiny_detector.onnx', 'tiny_detector_raw.onnx']


def test_an_export_that_differs_is_not_written(runs, tmp_path, monkeypatch):
    monkeypatch.setattr('mmdsym.deployment.graph.frame_of', lambda image: torch.tensor([48.0] * 4))
    with pytest.raises(UserError, match='find different boxes') as raised:
        export_onnx(runs('retinanet'), tmp_path / 'out')
    assert '\n' not in str(raised.value)
    assert not list((tmp_path / 'out').iterdir())


def test_no_box_above_the_threshold_is_no_proof(runs, tmp_path, monkeypatch):
    run = runs('retinanet')
    run.config.model.test_cfg.score_thr = 1.0
    exported = export_onnx(run, tmp_path)
    assert exported.below_threshold and exported.parity.boxes > 40
    assert contract_of(exported.path)[1]['score_threshold'] == 1.0
    assert [path.name for path in tmp_path.iterdir()] == ['tiny_detector.onnx']
    monkeypatch.setattr('mmdsym.deployment.graph.frame_of', lambda image: torch.tensor([48.0] * 4))
    with pytest.raises(UserError, match='find different boxes'):
        export_onnx(run, tmp_path / 'other')


def test_a_missing_package_is_named(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(UserError, match=r'onnxruntime is missing.*mmdsym\[deploy\]'):
        export_onnx(runs('retinanet'), tmp_path)


def test_detectors_that_predict_otherwise_are_refused(runs, tmp_path):
    with pytest.raises(UserError, match='GFL with GFLHead cannot be exported to ONNX'):
        export_onnx(runs('gfl'), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_transformer_is_exported_at_one_size(runs, tmp_path):
    run = runs('deformable_detr')
    with pytest.raises(UserError, match='one size of images alone; add --fixed-size'):
        export_onnx(run, tmp_path)
    with pytest.raises(UserError, match='no suppression that could be left out'):
        export_onnx(run, tmp_path, suppress=False, fixed_size=True)
    with pytest.raises(UserError, match='96x77 are padded to 96x96.*keep_ratio=False'):
        export_onnx(run, tmp_path, fixed_size=True)
    assert not list(tmp_path.iterdir())
    dataset_for_testing(run.config).pipeline[1].keep_ratio = False
    exported = export_onnx(run, tmp_path, fixed_size=True)
    assert exported.parity.boxes == 2 * 30
    detector = build_plain_detector(run)
    frames, _ = read_frames(detector.cfg, 2)
    runtime = OpenVino(exported.path, threads=1)
    assert check_parity(detector, runtime, frames, exported.contract, False).pixels < 0.5


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (dict(min_bbox_size=3), 'min_bbox_size=3'),
        (dict(nms=dict(type='soft_nms', iou_threshold=0.5)), 'soft_nms'),
        (dict(nms=dict(type='nms', iou_threshold=0.5, max_num=3)), 'max_num'),
        (dict(max_per_img=-1), 'positive max_per_img'),
    ],
)
def test_settings_without_a_counterpart_are_named(change, said, runs, tmp_path):
    run = runs('retinanet')
    run.config.model.test_cfg.update(change)
    with pytest.raises(UserError, match=said):
        export_onnx(run, tmp_path)


LOAD, PACK = dict(type='LoadImageFromFile'), dict(type='mmdet.PackDetInputs')


def test_pipelines_are_read():
    resize = dict(type='Resize', scale=(640, 320), keep_ratio=True)
    filled = dict(type='Pad', size=(640, 640), pad_val=dict(img=(1, 2, 3)))
    rule = read_resize([LOAD, resize, filled, dict(type='LoadAnnotations', with_bbox=True), PACK])
    assert (rule.width, rule.height, rule.keep_ratio) == (640, 320, True)
    # The pipeline's colours are BGR, the file's RGB.
    assert (rule.pad_width, rule.pad_height, rule.pad_value) == (640, 640, (3, 2, 1))
    assert read_resize([LOAD, dict(resize, keep_ratio=False)]).pad_width == 0


@pytest.mark.parametrize(
    ('step', 'said'),
    [
        (dict(type='RandomFlip', prob=0.5), 'RandomFlip'),
        (dict(type='Resize', scale_factor=2.0), 'scale_factor'),
        (dict(type='Resize', scale=(96, 96), interpolation='area'), 'area'),
        (dict(type='Pad', size_divisor=32), 'size_divisor'),
        (dict(type='LoadImageFromFile', color_type='grayscale'), 'grayscale'),
        (PACK, 'has no Resize'),
    ],
)
def test_pipelines_with_other_steps_are_refused(step, said):
    with pytest.raises(UserError, match=said):
        read_resize([LOAD, step])


def found(boxes, scores, labels=None):
    boxes = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    labels = np.zeros(len(boxes), int) if labels is None else np.array(labels)
    return Found(boxes, np.array(scores, dtype=np.float32), labels)


BOXES = [[0, 0, 10, 10], [20, 20, 40, 40]]
CUTS = Cuts(score=0.05, limit=100, overlap=0.5)


def test_equal_boxes_in_another_order_are_a_match():
    match = compare(found(BOXES, [0.9, 0.5]), found(BOXES[::-1], [0.5, 0.9]), CUTS)
    assert not match.missed and match.boxes == 2 and match.pixels == 0


@pytest.mark.parametrize(
    'other',
    [
        found([[0.6, 0, 10, 10], BOXES[1]], [0.9, 0.5]),
        found(BOXES, [0.9, 0.502]),
        found(BOXES, [0.9, 0.5], [0, 1]),
        found(BOXES[:1], [0.9]),
        found([*BOXES, [50, 50, 60, 60]], [0.9, 0.5, 0.4]),
        found([BOXES[0], *BOXES], [0.9, 0.9, 0.5]),
        found([], []),
    ],
    ids=['moved', 'score', 'class', 'lacking', 'further', 'twice', 'nothing'],
)
def test_every_difference_is_seen(other):
    assert compare(found(BOXES, [0.9, 0.5]), other, CUTS).missed


def test_boxes_at_the_cut_of_scores_may_be_without_a_counterpart():
    assert not compare(found(BOXES, [0.9, 0.0505]), found(BOXES[:1], [0.9]), CUTS).missed
    assert compare(found(BOXES, [0.9, 0.052]), found(BOXES[:1], [0.9]), CUTS).missed
    # Of two boxes with almost one score, the limit keeps this or that.
    other = found([BOXES[0], [50, 50, 60, 60]], [0.9, 0.5])
    assert not compare(found(BOXES, [0.9, 0.5]), other, replace(CUTS, limit=2)).missed
    assert compare(found(BOXES, [0.9, 0.5]), other, replace(CUTS, limit=3)).missed


def test_boxes_at_the_cut_of_overlaps_may_be_without_a_counterpart():
    best, half, within_half = [0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 8, 5]
    with_half = found([best, half], [0.9, 0.8])
    # Once the half is gone, what it alone suppresses comes up.
    without = found([best, within_half], [0.9, 0.7])
    match = compare(with_half, without, CUTS)
    assert not match.missed and match.at_cut == 2
    assert len(compare(with_half, without, replace(CUTS, overlap=0.6)).missed) == 2
    # A worse box, or one of another class, suppresses nothing.
    assert compare(found([best, half], [0.7, 0.8]), found([best], [0.7]), CUTS).missed
    other_class = found([best, half], [0.9, 0.8], [0, 1])
    assert compare(other_class, found([best], [0.9]), CUTS).missed
    agnostic = replace(CUTS, class_agnostic=True)
    assert not compare(other_class, found([best], [0.9]), agnostic).missed


def test_fixed_padding_predicts_the_same_and_only_where_it_is_known():
    network = MODELS.build(dict(tiny_detectors.atss()['backbone'])).eval()
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = network(images)
        assert fix_same_padding(network, 16) == 0
        assert fix_same_padding(network, 32) == 5
        after = network(images)
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_a_suppression_of_nothing_gives_nothing():
    suppression = Suppression(dict(type='nms', iou_threshold=0.5), 2, 5)
    nothing = Boxes(torch.ones(2, 3, 4), torch.full((2, 3), NO_SCORE), torch.zeros(2, 3).long())
    kept = suppression(nothing)
    assert kept.boxes.shape == (2, 3, 4)
    assert not kept.scores.any() and (kept.labels == -1).all()


def test_without_test_images_noise_is_compared_and_said(runs, tmp_path, monkeypatch, capsys):
    run = runs('retinanet')
    run.config.test_dataloader.dataset.data_root = str(tmp_path / 'none')
    monkeypatch.setattr('mmdsym.trained_run.load_run', lambda target, config: run)
    call_tool(monkeypatch, 'export_detector.py', 'anything', '--out', tmp_path / 'out', '--onnx')
    assert 'images of random noise' in capsys.readouterr().out


def test_images_of_several_sizes_have_no_fixed_one(runs, tmp_path, monkeypatch):
    def of_two_sizes(config, count):
        frames, real = read_frames(config, count)
        return [frames[0], frames[0].cropped(50, 60)], real

    monkeypatch.setattr('mmdsym.deployment.onnx_export.read_frames', of_two_sizes)
    with pytest.raises(UserError, match='several sizes once resized .50x60, 96x77.'):
        export_onnx(runs('retinanet'), tmp_path, fixed_size=True)
    assert not list(tmp_path.iterdir())
