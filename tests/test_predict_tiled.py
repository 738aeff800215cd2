"""From large images to boxes on them: prepared in tiles, trained, detected and evaluated whole."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, call_tool
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS
from mmengine import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mmdsym.command_line import build_runner
from mmdsym.config import complete_config
from mmdsym.errors import UserError
from mmdsym.tiling import Tiling
from mmdsym.tiling.detections import Detections, evaluate
from mmdsym.tiling.prediction import TiledPrediction
from mmdsym.tiling.tiled_detector import Merging, TiledDetector
from mmdsym.tiling.whole_images import from_folder, tiling_of, validation_images
from mmdsym.trained_run import OWN_THRESHOLDS, load_run

SIDE = 64
WIDTH, HEIGHT = 150, 100
CLASSES = ['dark', 'bright']


def draw(index: int) -> tuple[np.ndarray, list[tuple[str, list[int]]]]:
    """A grey image with a dark and a bright square of 12 pixels, far from each other."""
    rng = np.random.default_rng(index)
    pixels = rng.normal(128, 4, (HEIGHT, WIDTH))
    boxes = []
    for label, left in ((0, 0), (1, 75)):
        x, y = left + int(rng.integers(0, 60)), int(rng.integers(0, HEIGHT - 12))
        pixels[y : y + 12, x : x + 12] += 100 * (2 * label - 1)
        boxes.append((CLASSES[label], [x, y, 12, 12]))
    return pixels.clip(0, 255).astype(np.uint8), boxes


@pytest.fixture(scope='module')
def wide_images(tmp_path_factory):
    root = tmp_path_factory.mktemp('wide') / 'source'
    for split, numbers in (('train', range(16)), ('valid', range(16, 20))):
        images, annotations = [], []
        (root / split).mkdir(parents=True)
        for number in numbers:
            pixels, boxes = draw(number)
            Image.fromarray(pixels).save(root / split / f'{number}.png')
            size = dict(width=WIDTH, height=HEIGHT)
            images.append(dict(id=number, file_name=f'{number}.png', **size))
            annotations += [
                dict(
                    id=len(annotations) + offset,
                    image_id=number,
                    category_id=CLASSES.index(label),
                    bbox=box,
                )
                for offset, (label, box) in enumerate(boxes)
            ]
        categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES)]
        content = dict(images=images, annotations=annotations, categories=categories)
        (root / split / '_annotations.coco.json').write_text(json.dumps(content))
    return root


@pytest.fixture(scope='module')
def trained(wide_images, tmp_path_factory):
    """A run that was trained for a few iterations on tiles, its data made by the command."""
    folder = tmp_path_factory.mktemp('run')
    with pytest.MonkeyPatch.context() as patch:
        choices = ['--tile', SIDE, '--overlap', 0.25, '--fractions', 1, '--seeds', 0]
        call_tool(
            patch, 'prepare_dataset.py', wide_images, '--name', 'wide', '--out', folder, *choices
        )
    cfg = Config.fromfile(REPOSITORY / 'configs' / 'baselines' / 'supervised_demo_large.py')
    cfg.merge_from_dict(
        {
            'data_root': f'{folder}/wide/',
            'image_size': (SIDE, SIDE),
            'max_iters': 60,
            'train_cfg.max_iters': 60,
            'train_cfg.val_interval': 60,
            'param_scheduler': [],
            'optim_wrapper.optimizer.lr': 2e-3,
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'val_dataloader.num_workers': 0,
            'val_dataloader.persistent_workers': False,
            'default_hooks.checkpoint.interval': 60,
            'work_dir': str(folder / 'work'),
        }
    )
    build_runner(cfg).train()
    return folder / 'work'


def test_tiles_find_in_whole_images_what_the_shrunk_image_hides(trained, monkeypatch, capsys):
    call_tool(monkeypatch, 'predict_tiled.py', trained)
    tiled = json.loads((trained / 'predictions_tiled.json').read_text())
    assert tiled['settings']['tiling'] == {'size': SIDE, 'overlap': 0.25}
    assert 'mAP@0.5: ' in capsys.readouterr().out
    whole = trained.parent / 'whole.json'
    call_tool(monkeypatch, 'predict_tiled.py', trained, '--whole', 24, '--out', whole)
    shrunk = json.loads(whole.read_text())
    assert shrunk['settings']['tiling'] is None
    assert tiled['metrics']['bbox_mAP_50'] > shrunk['metrics']['bbox_mAP_50'] + 0.2
    assert len(tiled['images']) == 4
    # Boxes lie all over the whole image, not in the corner that a tile would be.
    assert max(row['bbox'][0] for row in tiled['annotations']) > SIDE
    for row in tiled['annotations']:
        x, y, width, height = row['bbox']
        assert 0 <= x < x + width <= WIDTH
        assert 0 <= y < y + height <= HEIGHT


def test_nothing_is_overwritten_and_a_folder_needs_no_truth(
    trained, wide_images, tmp_path, monkeypatch, capsys
):
    out = tmp_path / 'found.json'
    arguments = [trained, '--images', wide_images / 'valid', '--out', out]
    call_tool(monkeypatch, 'predict_tiled.py', *arguments)
    document = json.loads(out.read_text())
    assert 'metrics' not in document
    assert [image['file_name'] for image in document['images']] == [
        '16.png',
        '17.png',
        '18.png',
        '19.png',
    ]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        call_tool(monkeypatch, 'predict_tiled.py', *arguments)
    assert 'add --force to replace it' in capsys.readouterr().err
    assert json.loads(out.read_text()) == document


def test_boxes_are_written_from_the_calibrated_scores_on(
    trained, wide_images, tmp_path, monkeypatch
):
    run = load_run(trained)
    # Half of the dark ones, which a good threshold for both classes would not be.
    every = TiledPrediction(run, Tiling(SIDE, 0.25), least_score=0.0).run_on(
        from_folder(wide_images / 'valid', run.classes)
    )
    dark = [row['score'] for row in every['annotations'] if row['category_id'] == 1]
    scores = {1: float(np.median(dark)), 2: 0.02}
    calibrated = {**run.checkpoint, OWN_THRESHOLDS: list(scores.values())}
    torch.save(calibrated, tmp_path / 'iter_60.pth')
    (tmp_path / run.config_path.name).write_text(run.config_path.read_text())
    images = ['--images', wide_images / 'valid']
    call_tool(monkeypatch, 'predict_tiled.py', tmp_path, *images)
    document = json.loads((tmp_path / 'predictions_tiled.json').read_text())
    found = {number: 0 for number in scores}
    for row in document['annotations']:
        assert row['score'] >= scores[row['category_id']] - 1e-4
        found[row['category_id']] += 1
    assert 0 < found[1] < len(dark) and found[2] > 0
    shown = document['settings']['show_from_score']
    assert list(shown) == CLASSES and shown['dark'] == pytest.approx(scores[1], abs=1e-4)
    out = tmp_path / 'all.json'
    call_tool(monkeypatch, 'predict_tiled.py', tmp_path, *images, '--score', 0, '--out', out)
    assert json.loads(out.read_text())['annotations'] == every['annotations']


def test_a_tile_that_is_the_image_gives_what_the_detector_gives(trained):
    run = load_run(trained)
    detector = TiledDetector(run, least_score=0.1, long_side=WIDTH)
    images = validation_images(run)
    path = images.path(images.images[0])
    # No merging of what the detector itself lets stand.
    tiled = detector.on_tiles(path, Tiling(200, 0.0), Merging('nms', 1.0))
    whole = detector.on_whole(path)
    assert len(whole.scores) > 0
    assert np.allclose(tiled.boxes, whole.boxes, atol=1e-3)
    assert np.allclose(tiled.scores, whole.scores, atol=1e-5)


def load_script():
    spec = importlib.util.spec_from_file_location(
        'infer_onnx', REPOSITORY / 'tools' / 'infer_onnx.py'
    )
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


SCRIPT = load_script()


def test_the_exported_file_finds_on_tiles_what_the_run_finds(trained, tmp_path, monkeypatch):
    from mmdsym.deployment.onnx_export import export_onnx

    run = load_run(trained)
    exported = export_onnx(run, tmp_path)
    assert exported.contract['tiling'] == {'size': SIDE, 'overlap': 0.25, 'merge_threshold': 0.5}
    images = validation_images(run)
    out = tmp_path / 'boxes.json'
    arguments = [exported.path, images.folder / 'whole', '--out', out, '--score', 0.1]
    run_tool_status(monkeypatch, 'infer_onnx.py', *arguments)
    found = json.loads(out.read_text())['images']
    detector = TiledDetector(run, least_score=0.1)
    for entry, listed in zip(images.images, found, strict=True):
        expected = detector.on_tiles(images.path(entry), Tiling(SIDE, 0.25), Merging())
        boxes = [[box[key] for key in ('x1', 'y1', 'x2', 'y2')] for box in listed['boxes']]
        assert len(boxes) == len(expected.scores) > 0
        assert np.abs(np.array(boxes) - expected.boxes).max() < 0.5
        assert [box['class'] for box in listed['boxes']] == [CLASSES[i] for i in expected.labels]
        scores = [box['score'] for box in listed['boxes']]
        assert np.abs(np.array(scores) - expected.scores).max() < 1e-3
    # Boxes lie all over the image; without tiles the result is another one.
    assert max(box['x1'] for entry in found for box in entry['boxes']) > SIDE
    run_tool_status(monkeypatch, 'infer_onnx.py', *arguments, '--force', '--tile', 0)
    assert json.loads(out.read_text())['images'] != found


def run_tool_status(monkeypatch, tool, *arguments):
    with pytest.raises(SystemExit) as stop:
        call_tool(monkeypatch, tool, *arguments)
    assert stop.value.code == 0


@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.integers(32, 200),
    st.sampled_from([0, 0.2, 0.33, 0.9]),
)
@settings(deadline=None, max_examples=300)
def test_the_script_cuts_tiles_as_preparation_does(width, height, size, overlap):
    own = SCRIPT.windows(width, height, {'size': size, 'overlap': overlap})
    assert own == [tuple(window) for window in Tiling(size, overlap).windows(width, height)]


def test_wrong_tiles_are_named():
    choose = SCRIPT.choose_tiling
    trained = {'size': 64, 'overlap': 0.25, 'merge_threshold': 0.5}
    assert choose(trained, None, None) == trained and choose(trained, 0, None) is None
    assert choose(None, None, None) is None and choose(None, 64, None)['overlap'] == 0.2
    for wrong in ((None, 5, None), (None, -1, None), (trained, None, 1.0), (None, None, 0.2)):
        with pytest.raises(SCRIPT.Failure):
            choose(*wrong)


def test_the_run_knows_its_tiles_and_whole_images(trained):
    run = load_run(trained)
    assert tiling_of(run) == Tiling(SIDE, 0.25)
    names = [entry['file_name'] for entry in validation_images(run).images]
    assert names == ['whole/16.png', 'whole/17.png', 'whole/18.png', 'whole/19.png']


def test_true_boxes_are_perfect_and_shifted_ones_worthless(trained):
    images = validation_images(load_run(trained))
    truth = json.loads(images.annotations.read_text())
    for shift, expected in ((0, 1.0), (20, 0.0)):
        found = {}
        for entry in images.images:
            rows = [row for row in truth['annotations'] if row['image_id'] == entry['id']]
            edges = [(x + shift, y, x + w + shift, y + h) for x, y, w, h in map(_box, rows)]
            found[entry['id']] = Detections.of(
                [(e, 0.9, row['category_id'] - 1) for e, row in zip(edges, rows, strict=True)]
            )
        metrics = evaluate(found, images.annotations, CLASSES)
        assert metrics['bbox_mAP_50'] == pytest.approx(expected)


def _box(row):
    return row['bbox']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--ann', 'absent.json'], "'absent.json' does not exist"),
        (['--images', 'absent'], "'absent' is no folder with images"),
        (['--merge', 'glue'], "cannot be merged by 'glue'; use nms, greedy-nmm, nmm"),
        (['--tile', '8'], 'too small; give at least 32'),
        (['--tile', '0'], 'too small; give at least 32'),
        (['--whole', '-5'], '--whole -5 is no side'),
        (['--whole', '--tile', '64'], '--whole looks at no tiles: leave out --tile'),
        (['--image-root', '.'], 'add --ann'),
        (['--score', '3'], r'a score of 3 is outside [0, 1]'),
    ],
)
def test_wrong_calls_are_named(trained, tmp_path, monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit):
        call_tool(
            monkeypatch, 'predict_tiled.py', trained, '--out', tmp_path / 'x.json', *arguments
        )
    assert message in capsys.readouterr().err


def test_an_image_that_cannot_be_read_is_named(trained, tmp_path):
    detector = TiledDetector(load_run(trained))
    broken = tmp_path / 'broken.png'
    broken.write_bytes(b'no image')
    with pytest.raises(UserError, match='broken.png.*cannot be read'):
        detector.on_whole(broken)


def test_teacher_and_student_each_look_at_tiles(trained, tmp_path):
    cfg = Config.fromfile(REPOSITORY / 'configs/baselines/teacher_student_neu_40pct.py')
    cfg.merge_from_dict(
        {
            'data_root': f'{trained.parent}/wide/',
            'split': '100pct_seed0',
            'image_size': (SIDE, SIDE),
            'model.detector.backbone.pretrained': None,
            # Untrained networks are sure of nothing.
            'model.detector.test_cfg.score_thr': 0.0,
        }
    )
    cfg = complete_config(cfg)
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    cfg.dump(tmp_path / 'pair.py')
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'iter_1.pth')
    run = load_run(tmp_path / 'iter_1.pth')
    path = trained.parent / 'wide' / 'images' / 'whole' / '16.png'
    found = {
        which: TiledDetector(run, which, least_score=0.0).on_tiles(path, Tiling(SIDE), Merging())
        for which in ('teacher', 'student')
    }
    assert all(len(detections.scores) > 0 for detections in found.values())
    scores = [detections.scores[0] for detections in found.values()]
    assert scores[0] != scores[1]
