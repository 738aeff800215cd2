"""The inference script: with its three packages alone it finds what MMDetection finds."""

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_detectors
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.apis import inference_detector
from PIL import Image
from test_export import data_root, write_run  # noqa: F401
from torchvision.ops import batched_nms

from mmdsym.deployment.onnx_export import export_onnx
from mmdsym.export import build_plain_detector
from mmdsym.trained_run import load_run

torch.set_num_threads(1)

SCRIPT = Path(__file__).parents[2] / 'tools' / 'infer_onnx.py'
# Runs the script where nothing but the standard library and its three packages can be imported.
ISOLATED = """
import runpy, sys
OWN = {'onnxruntime', 'numpy', 'PIL'}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.partition('.')[0]
        if top in sys.stdlib_module_names or top in OWN:
            return None
        raise ModuleNotFoundError('blocked: ' + name, name=name)
sys.meta_path.insert(0, Blocker())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.fixture(scope='module')
def script():
    spec = importlib.util.spec_from_file_location('infer_onnx', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def run(tmp_path_factory, data_root):  # noqa: F811
    model = tiny_detectors.retinanet()
    # A threshold, so that not every image is full of boxes.
    model['test_cfg'] = dict(model['test_cfg'], score_thr=0.3)
    return load_run(write_run(tmp_path_factory.mktemp('run') / 'tiny', model, data_root))


@pytest.fixture(scope='module')
def models(run, tmp_path_factory):
    """The ONNX files with suppression inside and outside."""
    folder = tmp_path_factory.mktemp('onnx')
    return [export_onnx(run, folder, suppress=inside).path for inside in (True, False)]


@pytest.fixture
def picture(tmp_path):
    """Writes an image of a mode and size, and returns its path."""

    def write(name, shape=(70, 110, 3), dtype=np.uint8, **options):
        pixels = np.random.default_rng(len(name)).integers(0, np.iinfo(dtype).max, shape, dtype)
        path = tmp_path / 'images' / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path, **options)
        return path

    return write


def isolated(*arguments):
    command = [sys.executable, '-I', '-c', ISOLATED, SCRIPT, *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


def test_it_runs_with_its_three_packages_alone(models, picture, tmp_path):
    folder = picture('a.png').parent
    (folder / 'notes.txt').write_text('no image')
    out, drawn = tmp_path / 'boxes.json', tmp_path / 'drawn'
    done = isolated(models[0], folder, '--out', out, '--draw', drawn, '--score', '0.3')
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    (entry,) = result['images']
    assert entry['width'] == 110 and len(entry['boxes']) > 3 and result['skipped'] == []
    assert set(entry['boxes'][0]) == {'class', 'score', 'x1', 'y1', 'x2', 'y2'}
    assert f'{len(entry["boxes"])} boxes on 1 images' in done.stdout
    with Image.open(drawn / '00000_a.png') as image, Image.open(folder / 'a.png') as original:
        assert image.size == original.size
        assert np.any(np.asarray(image) != np.asarray(original))


def test_the_blocker_blocks(tmp_path):
    wrong = tmp_path / 'wrong.py'
    wrong.write_text('import torch')
    command = [sys.executable, '-I', '-c', ISOLATED, str(wrong)]
    assert 'blocked: torch' in subprocess.run(command, capture_output=True, text=True).stderr


@pytest.mark.parametrize('inside', [True, False])
def test_it_finds_what_mmdetection_finds(inside, script, models, run, picture):
    detector = build_plain_detector(run)
    onnx = script.Detector(models[not inside], threads=1, score=0.3)
    for path in (picture('wide.png'), picture('tall.png', (150, 60, 3)), picture('odd.bmp')):
        boxes = onnx.detect(script.read_image(path)[0])
        expected = inference_detector(detector, str(path)).pred_instances
        assert len(boxes) == len(expected) > 3
        corners = [[box[key] for key in ('x1', 'y1', 'x2', 'y2')] for box in boxes]
        # The script keeps to the image; MMDetection to the resized one, to a fraction of a pixel.
        assert np.abs(np.array(corners) - expected.bboxes.numpy()).max() < 0.05
        assert np.abs([box['score'] for box in boxes] - expected.scores.numpy()).max() < 1e-3
        labels = [onnx.classes.index(box['class']) for box in boxes]
        assert labels == expected.labels.tolist()


def test_by_default_the_file_says_which_boxes_are_shown(script, models):
    assert script.Detector(models[0]).thresholds.tolist() == pytest.approx([0.3, 0.3])


@given(st.tuples(*[st.integers(1, 90)] * 4), st.integers(0, 9))
@settings(max_examples=60)
def test_it_resizes_to_the_last_bit_as_opencv(script, sizes, seed):
    height, width, new_height, new_width = sizes
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = cv2.resize(pixels, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(script.resize_as_opencv(pixels, new_width, new_height), expected)


@pytest.mark.parametrize(
    ('name', 'shape', 'dtype', 'note'),
    [
        ('grey.png', (40, 30), np.uint8, ''),
        ('deep.png', (40, 30), np.uint16, '16 bits'),
        ('deep.tif', (40, 30), np.uint16, '16 bits'),
        ('alpha.png', (40, 30, 4), np.uint8, 'transparency'),
        ('colour.jpg', (40, 30, 3), np.uint8, ''),
    ],
)
def test_it_reads_images_as_the_training_did(name, shape, dtype, note, script, picture):
    path = picture(name, shape, dtype)
    image, said = script.read_image(path)
    assert note in said and bool(note) == bool(said)
    expected = cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.array_equal(np.asarray(image), expected)


def test_a_turned_image_is_turned_upright(script, picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = picture('turned.jpg', (40, 30, 3), exif=exif)
    image, said = script.read_image(path)
    assert image.size == (40, 30) and 'EXIF' in said
    assert np.array_equal(np.asarray(image), cv2.imread(str(path))[..., ::-1])


def test_what_cannot_be_read_is_named_and_the_rest_is_done(models, picture, tmp_path):
    folder = picture('good.png').parent
    (folder / 'broken.png').write_bytes(b'no image at all')
    (folder / 'cut.jpg').write_bytes(picture('whole.jpg').read_bytes()[:600])
    Image.fromarray(np.ones((20, 20), np.float32)).save(folder / 'float.tif')
    out = tmp_path / 'boxes.csv'
    done = isolated(models[0], folder, '--out', out, '--score', '0.3')
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert [Path(line.split(':')[0]).name for line in lines] == [
        'broken.png',
        'cut.jpg',
        'float.tif',
    ]
    rows = list(csv.DictReader(out.open()))
    assert {Path(row['file']).name for row in rows} == {'good.png', 'whole.jpg'}
    assert all(0 <= float(row['x1']) < float(row['x2']) <= 110 for row in rows)


def test_one_line_says_what_is_wrong(models, picture, tmp_path):
    image, out = picture('a.png'), tmp_path / 'boxes.json'
    text = tmp_path / 'text.onnx'
    text.write_text('no model')
    out.write_text('mine')
    for arguments, said in (
        ((tmp_path / 'none.onnx', image, '--out', tmp_path / 'b.json'), 'there is no file'),
        ((text, image, '--out', tmp_path / 'b.json'), 'cannot be read as ONNX'),
        ((models[0], tmp_path / 'none', '--out', tmp_path / 'b.json'), 'does not exist'),
        ((models[0], image, '--out', tmp_path / 'b.txt'), 'must end in .json or .csv'),
        ((models[0], image, '--out', out), '--force'),
        ((models[0], image, '--out', tmp_path / 'b.csv', '--score', 'nan'), '--score nan is none'),
        ((models[0], image, '--out', tmp_path / 'b.csv', '--score', '1.5'), '--score 1.5 is none'),
        ((models[0], image, '--out', tmp_path / 'b.csv', '--threads', '-1'), '--threads -1'),
        ((models[0], image, '--out', out / 'b.csv'), 'nothing can be written into'),
        ((models[0], image, '--out', tmp_path / 'b.csv', '--draw', out / 'd'), 'can be written'),
        ((models[0], image.parent, '--out', tmp_path / 'b.csv', '--draw', image.parent), '--draw'),
    ):
        done = isolated(*arguments)
        assert done.returncode == 2 and said in done.stderr
        assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
    assert out.read_text() == 'mine'


def test_hidden_files_and_what_was_drawn_are_not_looked_at(script, picture):
    folder = picture('a.png').parent
    (folder / '.hidden').mkdir()
    (folder / 'drawn').mkdir()
    for name in ('._a.png', '.hidden/b.png', 'drawn/00000_a.png', 'c.png'):
        (folder / name).write_bytes((folder / 'a.png').read_bytes())
    listed = script.list_images([folder], folder / 'drawn')
    assert [path.name for path in listed] == ['a.png', 'c.png']


def test_an_image_too_many_for_the_model_is_named(script, models, picture, monkeypatch, capsys):
    out = picture('b.png').parents[1] / 'boxes.json'
    asked = []

    def run(self, names, feed):
        asked.append(feed)
        if len(asked) == 2:
            raise RuntimeError('[ONNXRuntimeError] bad allocation\nand more')
        return np.zeros((1, 0, 4)), np.zeros((1, 0)), np.zeros((1, 0), int)

    monkeypatch.setattr(script.onnxruntime.InferenceSession, 'run', run)
    arguments = [models[0], picture('a.png'), picture('b.png'), picture('c.png'), '--out', out]
    monkeypatch.setattr(sys, 'argv', ['infer_onnx.py', *map(str, arguments)])
    assert script.run(script.parse_arguments()) == 1
    assert 'b.png: the model cannot look at it ([ONNXRuntimeError] bad allocation)' in (
        capsys.readouterr().err
    )
    result = json.loads(out.read_text())
    assert [Path(one['file']).name for one in result['images']] == ['a.png', 'c.png']
    assert len(result['skipped']) == 1


def test_a_name_that_is_no_text_reaches_the_table(models, picture, tmp_path):
    odd = picture('a.png').rename(tmp_path / os.fsdecode(b'caf\xe9.png'))
    out = tmp_path / 'boxes.csv'
    done = isolated(models[0], odd, '--out', out, '--score', '0')
    assert done.returncode == 0, done.stderr
    assert 'caf\\udce9.png' in out.read_text()


def test_another_size_than_the_fixed_one_is_named(run, script, picture, tmp_path):
    path = export_onnx(run, tmp_path / 'out', fixed_size=True).path
    detector = script.Detector(path)
    assert isinstance(detector.detect(Image.new('RGB', (100, 80))), list)
    with pytest.raises(script.Failure, match='the model takes 96x77 alone'):
        detector.detect(Image.new('RGB', (80, 100)))


def test_its_suppression_is_torchvisions(script):
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 60, (200, 2))
    boxes = np.hstack([corners, corners + generator.uniform(1, 40, (200, 2))]).astype(np.float32)
    scores = generator.permutation(200).astype(np.float32) / 200
    labels = generator.integers(0, 3, 200)
    expected = batched_nms(*map(torch.from_numpy, (boxes, scores, labels)), 0.5)
    assert script.suppress(boxes, scores, labels, 0.5).tolist() == expected.tolist()
    nothing = script.suppress(boxes[:0], scores[:0], labels[:0], 0.5)
    assert len(nothing) == 0


def test_padding_fills_up_at_the_right_and_below(script):
    pixels = np.full((2, 3, 3), 9, np.uint8)
    padded = script.pad(pixels, dict(pad_width=4, pad_height=3, pad_value=[1, 2, 3]))
    assert padded.shape == (3, 4, 3)
    assert np.array_equal(padded[:2, :3], pixels)
    assert padded[2, 3].tolist() == padded[0, 3].tolist() == [1, 2, 3]
