"""Images and annotations at fault: each is named in one sentence with its cure, or mended."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image
from preparation_data import BOX, make_coco_annotations, make_voc, make_yolo, voc_xml
from test_preparation_refusals import call, main  # noqa: F401  (fixtures)

Spoiler = Callable[[Path], None]
IMAGE, XML = 'JPEGImages/part3.jpg', 'Annotations/part3.xml'


def huge_png(width: int, height: int) -> bytes:
    """A few bytes that claim to be a picture of any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack('>I', zlib.crc32(kind + content))
        return struct.pack('>I', len(content)) + kind + content + checksum

    header = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return (
        b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', data) + chunk(b'IEND', b'')
    )


def image_bytes(content: bytes) -> Spoiler:
    return lambda source: (source / IMAGE).write_bytes(content)


def cut_image(share: float) -> Spoiler:
    def spoil(source: Path) -> None:
        content = (source / IMAGE).read_bytes()
        (source / IMAGE).write_bytes(content[: int(len(content) * share)])

    return spoil


def damaged_tiff(source: Path) -> None:
    (source / IMAGE).unlink()
    path = source / 'JPEGImages/part3.tif'
    Image.new('L', (40, 30)).save(path, compression='tiff_lzw')
    content = bytearray(path.read_bytes())
    content[4:8] = b'\xff\xff\xff\x00'
    path.write_bytes(content)


DAMAGED = 'damaged image'
BAD_IMAGES: dict[str, Spoiler] = {
    'empty': image_bytes(b''),
    'one byte': image_bytes(b'\xff'),
    'text': image_bytes(b'<html>not found</html>'),
    'cut in its header': cut_image(0.05),
    'cut in the middle': cut_image(0.6),
    'a checkpoint': image_bytes(b'PK\x03\x04' + bytes(500)),
    'damaged tiff': damaged_tiff,
    'a billion pixels': image_bytes(huge_png(40000, 25000)),
    'a hundred million pixels': image_bytes(huge_png(10000, 10000)),
    'no width': image_bytes(huge_png(0, 30)),
    'the largest width': image_bytes(huge_png(2**31 - 1, 2**31 - 1)),
}


@pytest.mark.parametrize('kind', BAD_IMAGES)
def test_an_image_at_fault_is_named_and_left_out(call, tmp_path, kind):  # noqa: F811
    source = make_voc(tmp_path / 'source')
    BAD_IMAGES[kind](source)
    status, _, error = call()
    assert status == 2 and f'1 x {DAMAGED}' in error and 'part3' in error
    assert not (tmp_path / 'out/x').exists()
    status, page, _ = call('--fix')
    assert status == 0 and 'left out image part3' in page
    assert not list((tmp_path / 'out/x/images').glob('part3*'))


def grey(size: tuple[int, int] = (40, 30)) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, size[::-1], dtype=np.uint8)


UNUSUAL: dict[str, Image.Image] = {
    '1 bit': Image.fromarray(grey()).convert('1'),
    '16 bits': Image.fromarray(grey().astype(np.uint16) * 257),
    '32 bits': Image.fromarray(grey().astype(np.int32) * 257),
    'floats': Image.fromarray(grey().astype(np.float32)),
    'palette': Image.fromarray(grey()).convert('P'),
    'grey and alpha': Image.fromarray(grey()).convert('LA'),
    'RGBA': Image.fromarray(grey()).convert('RGBA'),
    'CMYK': Image.fromarray(grey()).convert('CMYK'),
    'YCbCr': Image.fromarray(grey()).convert('YCbCr'),
}
# OpenCV, which loads for training, cannot show these as three channels of bytes.
SUFFIX = {'32 bits': '.tif', 'floats': '.tif', 'CMYK': '.jpg', 'YCbCr': '.jpg'}


@pytest.mark.parametrize('mode', UNUSUAL)
def test_an_image_of_unusual_depth_trains_or_is_named(call, tmp_path, mode):  # noqa: F811
    from mmdsym.datasets.loading import LoadCachedImageFromFile
    from mmdsym.errors import UserError

    source = make_voc(tmp_path / 'source')
    (source / IMAGE).unlink()
    name = f'part3{SUFFIX.get(mode, ".png")}'
    UNUSUAL[mode].save(source / 'JPEGImages' / name)
    status, _, error = call()
    if status == 2:
        assert f'1 x {DAMAGED}' in error and name in error
        return
    assert status == 0
    path = tmp_path / 'out/x/images' / name
    assert path.is_file()
    try:
        loaded = LoadCachedImageFromFile().transform(dict(img_path=str(path)))['img']
    except UserError as fault:
        assert str(path) in str(fault) and '\n' not in str(fault)
    else:
        assert loaded.shape == (30, 40, 3) and loaded.dtype == np.uint8


def xml(text: str | bytes) -> Spoiler:
    content = text.encode() if isinstance(text, str) else text
    return lambda source: (source / XML).write_bytes(content)


BOMB = (
    '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx">'
    + ''.join(f'<!ENTITY x{i} "{f"&x{i - 1 if i else str()};" * 10}">' for i in range(9))
    + ']><annotation><object><name>&x8;</name></object></annotation>'
)
SECRET = (
    '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    '<annotation><object><name>&x;</name></object></annotation>'
)
UNREADABLE = 'unreadable annotation'
BAD_XML: dict[str, tuple[Spoiler, str]] = {
    'empty': (xml(''), UNREADABLE),
    'zeros': (xml(bytes(100)), UNREADABLE),
    'cut': (xml(voc_xml([('dent', BOX)])[:90]), UNREADABLE),
    'a page': (xml('<html><body>404</body></html>'), UNREADABLE),
    'entities that explode': (xml(BOMB), UNREADABLE),
    'an entity that reads a file': (xml(SECRET), UNREADABLE),
    'not UTF-8': (xml(b'<annotation><filename>\xff\xfe</filename></annotation>'), UNREADABLE),
    'an unknown encoding': (xml('<?xml version="1.0" encoding="none"?><annotation/>'), UNREADABLE),
    'an encoding of bytes': (
        xml('<?xml version="1.0" encoding="base64"?><annotation/>'),
        UNREADABLE,
    ),
    'no name': (xml('<annotation><object><bndbox/></object></annotation>'), UNREADABLE),
    'no box': (xml('<annotation><object><name>dent</name></object></annotation>'), UNREADABLE),
    'a word for a number': (
        xml(voc_xml([('dent', BOX)]).replace('<ymax>25', '<ymax>high')),
        UNREADABLE,
    ),
    'NaN': (xml(voc_xml([('dent', (4, 5, float('nan'), 9))])), 'box of zero size'),
    'infinity': (xml(voc_xml([('dent', (4, 5, float('inf'), 9))])), 'box of zero size'),
    'corners exchanged': (xml(voc_xml([('dent', (14, 25, 4, 5))])), 'box of zero size'),
    'a box far away': (xml(voc_xml([('dent', (1e9, 1e9, 2e9, 2e9))])), 'box outside the image'),
    'nested a hundred thousand deep': (xml('<a>' * 100000), UNREADABLE),
}


@pytest.mark.parametrize('kind', BAD_XML)
def test_an_xml_at_fault_is_named_and_its_image_left_out(call, tmp_path, kind):  # noqa: F811
    source = make_voc(tmp_path / 'source')
    spoil, problem = BAD_XML[kind]
    spoil(source)
    status, _, error = call()
    assert status == 2 and f'1 x {problem}' in error and 'part3' in error
    assert 'root:' not in error
    status, page, _ = call('--fix')
    assert status == 0 and 'left out image part3.jpg' in page


BAD_LINES = {
    'empty numbers': '0',
    'a word': 'dent 0.5 0.5 0.1 0.1',
    'three numbers': '0 0.5 0.5 0.1',
    'an odd polygon': '0 0.1 0.1 0.2 0.2 0.3',
    'a class of 5,000 digits': f'{"9" * 5000} 0.5 0.5 0.1 0.1',
    'a fraction of a class': '0.5 0.5 0.5 0.1 0.1',
    'NaN': '0 nan 0.5 0.1 0.1',
    'infinity': '0 0.5 0.5 1e999 0.1',
    'a negative class': '-1 0.5 0.5 0.1 0.1',
    'an unknown class': '7 0.5 0.5 0.1 0.1',
    'a negative width': '0 0.5 0.5 -0.1 0.1',
    'pixels': '0 20 15 10 8',
    'bytes': b'0 0.5 \xff\xfe 0.1 0.1',
    'zeros': bytes(20),
}


@pytest.mark.parametrize('kind', BAD_LINES)
def test_a_yolo_line_at_fault_is_named_and_its_image_left_out(call, tmp_path, kind):  # noqa: F811
    source = make_yolo(tmp_path / 'source')
    line = BAD_LINES[kind]
    content = line if isinstance(line, bytes) else line.encode()
    (source / 'labels/train/part3.txt').write_bytes(content)
    status, _, error = call()
    assert status == 2 and 'part3' in error
    assert len(error) < 20000
    status, page, _ = call('--fix')
    assert status == 0 and 'left out image part3.png' in page


BAD_NAMES = {
    'damaged yaml': 'names: [dent, crack',
    'yaml that runs': 'names: !!python/object/apply:os.system ["touch pwned"]',
    'names without number': 'names: {a: dent, b: crack}',
    'a number of names': 'names: 2',
    'a name for nothing': 'names: {null: dent}',
    'a name for infinity': 'names: {.inf: dent}',
    'a name for a huge number': 'names: {4000000000: dent}',
    'a name for a negative number': 'names: {-1: dent}',
    'a date that is none': 'names: [2001-99-99]',
    'nested ten thousand deep': 'names: ' + '[' * 10000,
}


@pytest.mark.parametrize('kind', BAD_NAMES)
def test_class_names_at_fault_are_named(call, tmp_path, monkeypatch, kind):  # noqa: F811
    source = make_yolo(tmp_path / 'source')
    (source / 'data.yaml').write_text(BAD_NAMES[kind])
    monkeypatch.chdir(tmp_path)
    status, _, error = call()
    assert status == 2 and error.rstrip().split('\n')[-1].startswith('error: ')
    assert not list(tmp_path.rglob('pwned')) and not (tmp_path / 'out/x').exists()


BAD_ENTRIES = {
    'a box of 400 digits': dict(bbox=[10**400, 1, 2, 3]),
    'a box of words': dict(bbox=['a', 1, 2, 3]),
    'a box of lists': dict(bbox=[[1], [2], [3], [4]]),
    'a box of three': dict(bbox=[1, 2, 3]),
    'a box that is a dict': dict(bbox={'x': 1}),
    'a box that is a number': dict(bbox=7),
    'a mask of no size': dict(bbox=None, segmentation={'size': [], 'counts': 'a'}),
    'a mask of a huge size': dict(bbox=None, segmentation={'size': [10**12] * 2, 'counts': [1]}),
    'a mask of no text': dict(bbox=None, segmentation={'size': [30, 40], 'counts': '\u20ac'}),
    'a mask of negative runs': dict(
        bbox=None, segmentation={'size': [30, 40], 'counts': [-5, 1205]}
    ),
}


@pytest.mark.parametrize('kind', BAD_ENTRIES)
def test_a_coco_entry_at_fault_is_named_and_its_image_left_out(call, tmp_path, kind):  # noqa: F811
    source = make_coco_annotations(tmp_path / 'source')
    path = source / 'annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    content['annotations'][3].update(BAD_ENTRIES[kind])
    path.write_text(json.dumps(content))
    status, _, error = call()
    assert status == 2 and f'1 x {UNREADABLE}' in error and 'part3.png' in error
    status, page, _ = call('--fix')
    assert status == 0 and 'left out image part3.png' in page


def test_a_class_name_that_is_no_text_is_refused(call, tmp_path):  # noqa: F811
    source = make_coco_annotations(tmp_path / 'source')
    for path in (source / 'annotations').glob('*.json'):
        path.write_text(path.read_text().replace('"dent"', '"\\ud800"'))
    status, _, error = call('--fix')
    assert status == 2 and 'a class whose name is no text' in error


def test_a_file_name_that_is_no_utf8_is_named_and_left_out(call, tmp_path):  # noqa: F811
    source = make_voc(tmp_path / 'source')
    for path in (source / IMAGE, source / XML):
        path.rename(path.with_name(os.fsdecode(b'part\xff' + path.suffix.encode())))
    status, _, error = call()
    assert status == 2 and 'has a name that is not UTF-8' in error
    status, page, _ = call('--fix')
    assert status == 0 and r'left out image part\udcff.jpg' in page
    assert len(list((tmp_path / 'out/x/images').iterdir())) == 19


@pytest.mark.parametrize('kind', ['broken link', 'link in a circle', 'pipe', 'folder'])
def test_what_is_no_file_is_passed_over(call, tmp_path, kind):  # noqa: F811
    source = make_voc(tmp_path / 'source')
    path = source / 'JPEGImages/zzz.jpg'
    if kind == 'broken link':
        path.symlink_to(tmp_path / 'nowhere')
    elif kind == 'link in a circle':
        (source / 'JPEGImages/round').symlink_to(source, target_is_directory=True)
    elif kind == 'pipe':
        os.mkfifo(path)
    else:
        path.mkdir()
    assert call()[0] == 0
    assert len(list((tmp_path / 'out/x/images').rglob('*.jpg'))) == 20


@pytest.mark.parametrize('spoilt', [False, True], ids=['sound', 'all at fault'])
def test_a_million_boxes_take_bounded_memory(tmp_path, spoilt):
    source = make_yolo(tmp_path / 'source')
    line = '0 0.5 0.5 -0.2 0.2\n' if spoilt else '0 0.5 0.5 0.2 0.2\n'
    (source / 'labels/train/part3.txt').write_text(line * 1_000_000)

    command = [sys.executable, 'tools/prepare_dataset.py', str(source), '--name', 'x']
    command += ['--fractions', '1', '--seeds', '0', '--out', str(tmp_path / 'out')]
    with open(tmp_path / 'error', 'w') as error, open(tmp_path / 'page', 'w') as page:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=page, stderr=error)
        _, status, usage = os.wait4(process.pid, 0)
    # Linux counts in kibibytes.
    assert usage.ru_maxrss < 4 * 2**20
    code, told = os.waitstatus_to_exitcode(status), (tmp_path / 'error').read_text()
    assert 'Traceback' not in told
    if spoilt:
        assert code == 2 and '1000000 x box of zero size' in told
        assert len(told) < 20000
    else:
        assert code == 0, told
        assert (tmp_path / 'out/x/dataset_card.json').is_file()
