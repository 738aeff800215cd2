import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import call_tool
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine import Config
from PIL import Image

from mmdsym.benchmark.shown_boxes import judge_shown_boxes
from mmdsym.errors import UserError
from mmdsym.report.predictions import open_validation_data, predict
from mmdsym.trained_run import OWN_THRESHOLDS, TrainedRun, load_run
from mmdsym.visualization import Box, compose_sheet, draw_detections, draw_panel
from mmdsym.visualization.detections import _spread, known_map50, thresholds_of
from mmdsym.visualization.sheet import CLASS_COLOURS, GREEN, enlargement

torch.set_num_threads(1)

CLASSES = ('crack', 'pit')
RED = CLASS_COLOURS[0]

numbers = st.floats(-500, 900, allow_nan=False)


def pixels_of(image, colour):
    return int((np.asarray(image) == colour).all(axis=2).sum())


@given(
    size=st.tuples(st.integers(1, 900), st.integers(1, 900)),
    corners=st.tuples(numbers, numbers, numbers, numbers),
    text=st.text(max_size=30),
)
@settings(max_examples=40, deadline=None)
def test_any_box_can_be_drawn_on_any_image(size, corners, text):
    image = Image.new('RGB', size)
    panel = draw_panel(image, [Box(corners, text, GREEN)], 'caption')
    factor = enlargement(*size)
    assert panel.width == max(1, round(size[0] * factor))
    assert max(size) * factor <= 640.5 and max(size) * factor >= 399.5
    assert image.getextrema() == ((0, 0),) * 3  # the caller's image stays


def test_boxes_are_drawn_where_they_are_and_scaled():
    image = Image.new('RGB', (200, 200))
    panel = np.asarray(draw_panel(image, [Box((50, 60, 150, 160), 'pit', GREEN)], ''))
    bar = panel.shape[0] - 400
    for x, y in ((100, 120), (300, 320), (100, 320), (300, 120)):
        assert tuple(panel[y + bar, x]) == GREEN
    assert tuple(panel[220 + bar, 200]) == (0, 0, 0)
    # The text stands above the box; where there is no room, inside it.
    assert pixels_of(Image.fromarray(panel[bar + 95 : bar + 119]), GREEN) > 100
    top = draw_panel(image, [Box((0, 0, 199, 199), 'pit', GREEN)], '')
    assert pixels_of(top.crop((2, bar + 2, 60, bar + 20)), GREEN) > 100


def test_texts_of_boxes_in_one_place_do_not_hide_each_other():
    colours = [(255, 0, index) for index in range(1, 4)]
    boxes = [Box((0, 0, 199, 199), 'pit', colour) for colour in colours]
    panel = draw_panel(Image.new('RGB', (200, 200)), boxes, '')
    assert all(pixels_of(panel, colour) > 100 for colour in colours)


def test_a_sheet_holds_every_panel_once():
    panels = [Image.new('RGB', (60, 40), (index, 255, 0)) for index in range(1, 8)]
    sheet = compose_sheet([[panel, panel] for panel in panels], 'a title ' * 20, columns=3)
    for index in range(1, 8):
        assert pixels_of(sheet, (index, 255, 0)) == 2 * 60 * 40


@given(total=st.integers(1, 300), count=st.integers(1, 300))
@settings(deadline=None)
def test_images_are_spread_evenly_each_once(total, count):
    indices = _spread(total, count)
    assert len(set(indices)) == len(indices) == min(total, count)
    assert all(0 <= index < total for index in indices)
    steps = np.diff(indices)
    assert len(steps) == 0 or steps.max() - steps.min() <= 1


def detector_config():
    return dict(
        type='RetinaNet',
        data_preprocessor=dict(
            type='DetDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, pad_size_divisor=32
        ),
        backbone=dict(type='ResNet', depth=18, base_channels=8, out_indices=(1, 2, 3)),
        neck=dict(type='FPN', in_channels=[16, 32, 64], out_channels=16, num_outs=5),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=2,
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
        test_cfg=dict(
            nms_pre=20, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=5
        ),
    )


@pytest.fixture(scope='module')
def work_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    images = folder / 'data' / 'images'
    images.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    for index, image in enumerate(noise):
        Image.fromarray(image).save(images / f'{index}.png')
    annotation = dict(area=200, iscrowd=0, category_id=1, bbox=[10, 10, 20, 10])
    val = dict(
        images=[dict(id=i, file_name=f'{i}.png', width=64, height=64) for i in range(5)],
        annotations=[dict(id=i, image_id=i, **annotation) for i in range(4)],
        categories=[dict(id=i, name=name) for i, name in enumerate(CLASSES)],
    )
    (folder / 'data' / 'val.json').write_text(json.dumps(val))
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    pipeline = [
        dict(type='mmdsym.LoadCachedImageFromFile'),
        dict(type='Resize', scale=(64, 64)),
        dict(type='PackDetInputs'),
    ]
    config = Config(
        dict(
            default_scope='mmdet',
            model=dict(type='mmdsym.DSYMDetector', detector=detector_config()),
            val_dataloader=dict(
                batch_size=1,
                dataset=dict(
                    type='mmdsym.DefectDataset',
                    data_root=str(folder / 'data'),
                    ann_file='val.json',
                    data_prefix=dict(img='images'),
                    test_mode=True,
                    pipeline=pipeline,
                ),
            ),
        )
    )
    (folder / 'small.py').write_text(config.pretty_text)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    state = MODELS.build(config.model).state_dict()
    meta = dict(dataset_meta=dict(classes=CLASSES), iter=20)
    torch.save(dict(meta=meta, state_dict=state), folder / 'iter_20.pth')
    log = folder / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    entries = [
        {'teacher/coco/bbox_mAP_50': value, 'step': step} for value, step in ((0.2, 10), (0.5, 20))
    ]
    log.write_text('\n'.join(map(json.dumps, entries)) + '\n{"half a li')
    return folder


def test_a_sheet_shows_truth_and_detections_with_the_maps(work_dir):
    drawn = draw_detections(load_run(work_dir), count=4, score_threshold=0.0)
    assert drawn.path == work_dir / 'detections.png'
    assert drawn.images == 4 and drawn.detections == 20
    assert 'mAP@0.5 50.0' in drawn.title and 'teacher of iter_20' in drawn.title
    with Image.open(drawn.path) as sheet:
        # Three pairs of 400-pixel panels in a row, two rows.
        assert sheet.width > 6 * 400 and sheet.height > 2 * 400
        assert pixels_of(sheet.convert('RGB'), GREEN) > 1000
        assert any(pixels_of(sheet.convert('RGB'), colour) for colour in CLASS_COLOURS[:2])
    assert not list(work_dir.glob('.*unfinished'))


def test_a_folder_of_images_gives_one_panel_each(work_dir, tmp_path):
    run, out = load_run(work_dir), tmp_path / 'sheet.png'
    drawn = draw_detections(run, out, images=work_dir / 'data' / 'images', score_threshold=0.9)
    assert drawn.images == 5 and drawn.detections == 0
    with Image.open(out) as sheet:
        assert pixels_of(sheet.convert('RGB'), GREEN) == 0


def run_with(state, pair=True, path='iter_20.pth', folder=Path()):
    model = dict(type='X', detector={}) if pair else dict(type='X')
    checkpoint = dict(state_dict=state, meta=dict(dataset_meta=dict(classes=CLASSES)))
    config = Config(dict(model=model, val_dataloader=dict(dataset={})))
    return TrainedRun(config, Path('c.py'), folder / path, checkpoint)


@pytest.mark.parametrize(
    ('keep', 'given', 'expected'),
    [
        (None, None, [0.3, 0.3]),
        ([0.6, 0.4], None, [0.6, 0.4]),
        ([0.6, 2.0], None, [0.6, 0.3]),  # calibration trusts no box of the second class
        ([float('nan')] * 2, None, [0.3, 0.3]),
        ([0.6, 0.4], 0.1, [0.1, 0.1]),
    ],
)
def test_thresholds_are_the_calibrated_ones_or_a_default(keep, given, expected):
    state = {} if keep is None else dict(keep_thresholds=torch.tensor(keep))
    assert thresholds_of(run_with(state), given).tolist() == pytest.approx(expected)


def test_what_is_drawn_is_what_the_numbers_of_shown_boxes_count(work_dir):
    run = load_run(work_dir)
    found = predict(run, 'teacher', open_validation_data(run))
    middle = float(np.median([box['score'] for box in found]))
    run.checkpoint[OWN_THRESHOLDS] = [0.99, middle]
    shown = judge_shown_boxes(run)
    assert shown['found'] == draw_detections(run, count=5).detections
    assert 0 < shown['found'] < len(found)
    assert shown['true'] == shown['classes']['pit']['true'] == 4
    assert shown['classes']['pit']['from_score'] == pytest.approx(middle, abs=1e-4)
    assert shown['classes']['crack']['recall'] is None, 'no crack is there to be found'
    assert shown['precision'] == pytest.approx(shown['right'] / shown['found'], abs=1e-4)


def test_nothing_is_judged_that_was_not_calibrated(work_dir):
    run = load_run(work_dir)
    del run.checkpoint['state_dict']['keep_thresholds']
    assert judge_shown_boxes(run) is None


def test_the_map_is_that_of_the_very_checkpoint(work_dir):
    for path, expected in (('iter_10.pth', 0.2), ('best_iter_20.pth', 0.5), ('iter_30.pth', None)):
        assert known_map50(run_with({}, path=path, folder=work_dir)) == expected
    assert known_map50(run_with({}, pair=False, folder=work_dir)) is None


def test_the_map_is_found_where_evaluations_are_logged_as_step_zero(tmp_path):
    log = tmp_path / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    entries = []
    for step, value in ((10, 0.2), (20, 0.5)):
        entries += [dict(loss=1.0, step=step), {'teacher/coco/bbox_mAP_50': value, 'step': 0}]
    log.write_text('\n'.join(map(json.dumps, entries)))
    for path, expected in (('iter_10.pth', 0.2), ('iter_20.pth', 0.5), ('iter_15.pth', None)):
        assert known_map50(run_with({}, path=path, folder=tmp_path)) == expected


def test_faults_are_told_in_one_sentence(work_dir, tmp_path):
    run = load_run(work_dir)
    for arguments, named in (
        (dict(out='sheet.jpg'), 'sheet.jpg'),
        (dict(count=0), '--count 0'),
        (dict(images=tmp_path / 'none'), 'none'),
        (dict(images=tmp_path), 'holds no image'),
    ):
        with pytest.raises(UserError, match=named):
            draw_detections(run, **arguments)
    (tmp_path / 'broken.png').write_bytes(b'no image')
    with pytest.raises(UserError, match=r'broken\.png'):
        draw_detections(run, tmp_path / 'out.png', images=tmp_path)
    run.config.val_dataloader.dataset.ann_file = 'gone.json'
    with pytest.raises(UserError, match=r'gone\.json'):
        draw_detections(run, tmp_path / 'out.png')
    assert not (tmp_path / 'out.png').exists()


@pytest.mark.parametrize('by_config', [False, True])
def test_the_command_takes_a_work_directory_or_a_config(
    work_dir, tmp_path, monkeypatch, capsys, by_config
):
    out = tmp_path / 'sheet.png'
    what = [work_dir / 'small.py', work_dir / 'iter_20.pth'] if by_config else [work_dir]
    call_tool(
        monkeypatch, 'draw_detections.py', *what, '--out', out, '--count', 1, '--which', 'student'
    )
    assert out.is_file() and str(out) in capsys.readouterr().out


def test_the_command_takes_the_config_that_one_trained_with(
    work_dir, tmp_path, monkeypatch, capsys
):
    source = tmp_path / 'configs/small.py'
    source.parent.mkdir()
    # With places to fill in, as configs have them, and without the number of classes.
    source.write_text((work_dir / 'small.py').read_text().replace(str(work_dir), '{data_root}'))
    (tmp_path / 'work_dirs').mkdir()
    (tmp_path / 'work_dirs/small').symlink_to(work_dir)
    monkeypatch.chdir(tmp_path)
    for what in ([source], [source, work_dir / 'iter_20.pth']):
        out = tmp_path / f'{len(what)}.png'
        call_tool(monkeypatch, 'draw_detections.py', *what, '--out', out, '--count', 1)
        assert out.is_file()


def test_the_command_asks_for_a_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match='2'):
        call_tool(monkeypatch, 'draw_detections.py', 'configs/nowhere.py')
    assert 'name a checkpoint' in capsys.readouterr().err


def test_thresholds_of_filtered_scores_are_not_used_on_the_detectors_own():
    run = run_with(dict(keep_thresholds=torch.tensor([0.9, 0.1])))
    filtered = replace(run, checkpoint={**run.checkpoint, 'clip_filter': {}})
    assert thresholds_of(filtered).tolist() == pytest.approx([0.3, 0.3])
    assert thresholds_of(run).tolist() == pytest.approx([0.9, 0.1])
    # Those of the teacher's own scores are, whether or not there is a filter.
    own = replace(run, checkpoint={**filtered.checkpoint, 'teacher_thresholds': [0.5, 1.1]})
    assert thresholds_of(own).tolist() == pytest.approx([0.5, 0.3])
