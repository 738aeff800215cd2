"""What would spoil a run is refused with file and cure; --fix mends it and says how."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from preparation_data import BOX, make_coco_annotations, make_voc, save_image, voc_xml, write

from mmdsym.datasets.preparation import writing

TOOL = Path(__file__).parents[1] / 'tools' / 'prepare_dataset.py'


@pytest.fixture(scope='module')
def main():
    spec = importlib.util.spec_from_file_location('prepare_dataset', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool.main


@pytest.fixture
def call(main, tmp_path, capsys):
    """Runs the tool on tmp_path/source; returns exit status, standard output and error."""

    def run(*arguments: str, source: Path | None = None) -> tuple[int, str, str]:
        out = ['--out', str(tmp_path / 'out')]
        status = 0
        try:
            main([str(source or tmp_path / 'source'), '--name', 'x', *out, *arguments])
        except SystemExit as stop:
            status = stop.code
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def spoil_image(source: Path) -> str:
    path = source / 'JPEGImages' / 'part3.jpg'
    path.write_bytes(path.read_bytes()[:300])
    return 'part3.jpg'


def spoil_box(text: str):
    def spoil(source: Path) -> str:
        write(source / 'Annotations' / 'part3.xml', text)
        return 'part3.xml'

    return spoil


def spoil_duplicate(source: Path) -> str:
    """Makes each image occur twice, under names that the split cannot keep together."""
    write(source / 'ImageSets/Main/train.txt', '\n'.join(f'part{i}' for i in range(12)))
    write(source / 'ImageSets/Main/val.txt', '\n'.join(f'part{i}' for i in range(12, 20)))
    (source / 'JPEGImages' / 'part3.jpg').write_bytes(
        (source / 'JPEGImages' / 'part15.jpg').read_bytes()
    )
    return 'part3.jpg'


def spoil_missing(source: Path) -> str:
    write(source / 'Annotations' / 'ghost.xml', voc_xml([('dent', BOX)]))
    return 'ghost.xml'


CLASSES = ('--classes', 'dent', 'crack')
SPOILERS = {
    'damaged image': (spoil_image, 'left out image part3.jpg'),
    'unreadable annotation': (spoil_box('<annotation><object>'), 'left out image part3.jpg'),
    'annotation without image': (spoil_missing, 'ignored'),
    'unknown class': (spoil_box(voc_xml([('dint', BOX), ('dent', BOX)])), "class 'dint'"),
    'box of zero size': (
        spoil_box(voc_xml([('dent', (5, 5, 5, 9)), ('dent', BOX)])),
        'dropped a box of dent without area',
    ),
    'box outside the image': (
        spoil_box(voc_xml([('dent', (5, 5, 48, 20))])),
        'clipped a box of dent',
    ),
    'duplicate across splits': (spoil_duplicate, 'left out image part3.jpg'),
}


@pytest.mark.parametrize('kind', SPOILERS)
def test_refused_without_fix_and_mended_with_it(call, tmp_path, kind):
    source = make_voc(tmp_path / 'source')
    spoil, deed = SPOILERS[kind]
    file = spoil(source)
    before = {p: p.read_bytes() for p in source.rglob('*') if p.is_file()}
    status, _, message = call(*CLASSES)
    assert status == 2
    assert message.startswith('error: the data would spoil a run')
    assert kind in message and file in message and '--fix' in message
    assert 'Traceback' not in message
    assert not (tmp_path / 'out' / 'x').exists()
    status, page, _ = call(*CLASSES, '--fix')
    assert status == 0
    assert deed in page
    card = json.loads((tmp_path / 'out/x/dataset_card.json').read_text())
    assert card['problems_found'][kind] == 1
    assert any(deed in line for line in card['mended'])
    for path in (tmp_path / 'out/x/annotations').rglob('*.json'):
        check_boxes(json.loads(path.read_text()))
    assert before == {p: p.read_bytes() for p in source.rglob('*') if p.is_file()}


def check_boxes(document: dict) -> None:
    sizes = {i['id']: (i['width'], i['height']) for i in document['images']}
    for annotation in document['annotations']:
        x, y, w, h = annotation['bbox']
        width, height = sizes[annotation['image_id']]
        # MMDetection passes over boxes that are smaller.
        assert x >= 0 and y >= 0 and w >= 1 and h >= 1 and annotation['area'] >= 1
        assert x + w <= width and y + h <= height


def test_overhang_of_a_pixel_is_rounding(call, tmp_path):
    source = make_voc(tmp_path / 'source')
    write(source / 'Annotations' / 'part3.xml', voc_xml([('dent', (30, 20, 41, 31))]))
    assert call()[0] == 0
    for path in (tmp_path / 'out/x/annotations').rglob('*.json'):
        check_boxes(json.loads(path.read_text()))


@pytest.mark.parametrize('edges', [(10, 2, 10.8, 29), (38.7, 5, 39.5, 5.5)])
def test_a_hairline_is_widened_to_a_pixel_and_told(call, tmp_path, edges):
    source = make_voc(tmp_path / 'source')
    write(source / 'Annotations' / 'part3.xml', voc_xml([('dent', BOX), ('dent', edges)]))
    status, page, _ = call()
    assert status == 0
    assert '1 boxes are thinner than a pixel, such as one of dent in part3.jpg (x ' in page
    assert check_all_boxes(tmp_path / 'out/x') == 21


def test_a_box_that_rounding_alone_puts_into_the_image_is_none(call, tmp_path):
    source = make_voc(tmp_path / 'source')
    boxes = [('dent', (40.2, 5, 40.8, 20)), ('dent', BOX)]
    write(source / 'Annotations' / 'part3.xml', voc_xml(boxes))
    status, _, message = call()
    assert status == 2
    assert 'part3.xml: a box of dent has no area inside its 40x30 image (x 40.2..40.8' in message
    status, page, _ = call('--fix')
    assert status == 0 and 'dropped a box of dent without area in part3.jpg' in page
    assert check_all_boxes(tmp_path / 'out/x') == 20


def test_what_is_left_of_a_clipped_box_is_a_pixel_too(call, tmp_path):
    source = make_voc(tmp_path / 'source')
    write(source / 'Annotations' / 'part3.xml', voc_xml([('dent', (39.5, 5, 48, 20))]))
    assert call('--fix')[0] == 0
    assert check_all_boxes(tmp_path / 'out/x') == 20


def check_all_boxes(root: Path) -> int:
    """Checks the boxes of every json; returns how many train or validate."""
    for path in (root / 'annotations').rglob('*.json'):
        check_boxes(json.loads(path.read_text()))
    parts = [root / f'annotations/{split}.json' for split in ('train', 'val')]
    return sum(len(json.loads(part.read_text())['annotations']) for part in parts)


def test_an_image_that_loses_all_boxes_is_not_taken_for_sound(call, tmp_path):
    source = make_voc(tmp_path / 'source')
    write(source / 'Annotations' / 'part3.xml', voc_xml([('dint', BOX)]))
    status, page, _ = call(*CLASSES, '--fix')
    assert status == 0
    assert 'left out image part3.jpg: none of its boxes could be kept' in page
    assert not (tmp_path / 'out/x/images/part3.jpg').exists()


def test_many_problems_are_counted_not_listed(call, tmp_path):
    source = make_voc(tmp_path / 'source')
    for i in range(60):
        write(source / 'Annotations' / f'ghost{i}.xml', voc_xml([('dent', BOX)]))
    _, _, message = call()
    assert '60 x annotation without image' in message
    assert 'and 40 more files' in message
    assert len(message.strip().split('\n')) == 22


def test_problems_of_one_file_share_a_line(call, tmp_path):
    source = make_voc(tmp_path / 'source')
    write(source / 'Annotations' / 'part3.xml', voc_xml([('dint', BOX), ('dunt', BOX)]))
    _, _, message = call(*CLASSES)
    assert 'and 1 more in this file' in message
    assert message.count('part3.xml') == 1


def test_coco_entries_at_fault(call, tmp_path):
    source = make_coco_annotations(tmp_path / 'source')
    path = source / 'annotations' / 'instances_train2017.json'
    content = json.loads(path.read_text())
    content['images'].append({'id': 90, 'file_name': 'ghost.png', 'width': 40, 'height': 30})
    content['images'].append({'id': 91, 'file_name': 'part17.png', 'width': 40, 'height': 30})
    content['annotations'][0]['image_id'] = 77
    content['annotations'][1]['bbox'] = [1, 2, 'three', 4]
    content['annotations'][2]['category_id'] = 99
    path.write_text(json.dumps(content))
    status, _, message = call()
    assert status == 2
    for kind, count in {
        'annotation without image': 2,
        'duplicate across splits': 1,
        'unreadable annotation': 1,
        'unknown class': 1,
    }.items():
        assert f'{count} x {kind}' in message
    status, page, _ = call('--fix')
    assert status == 0
    train = json.loads((tmp_path / 'out/x/annotations/train.json').read_text())
    val = json.loads((tmp_path / 'out/x/annotations/val.json').read_text())
    names = {image['file_name'] for image in train['images']}
    # part0 lost its only entry's image id and is listed without box; part1 and part2 are unusable.
    assert names == {f'part{i}.png' for i in range(16) if i not in (1, 2)}
    assert 'part17.png' in {image['file_name'] for image in val['images']}


def test_duplicates_are_found_by_pixels_not_bytes(call, tmp_path):
    source = make_voc(tmp_path / 'source')
    spoil_duplicate(source)
    path = source / 'JPEGImages' / 'part3.jpg'
    with Image.open(source / 'JPEGImages' / 'part15.jpg') as original:
        pixels = np.asarray(original)
    path.unlink()
    Image.fromarray(np.stack([pixels] * 3, axis=2)).save(path.with_suffix('.png'))
    status, _, message = call()
    assert status == 2
    assert 'part3.png' in message and 'part15.jpg' in message


def test_unlabelled_folder(call, tmp_path):
    source = make_voc(tmp_path / 'source')
    write(source / 'ImageSets/Main/train.txt', '\n'.join(f'part{i}' for i in range(16)))
    write(source / 'ImageSets/Main/val.txt', '\n'.join(f'part{i}' for i in range(16, 20)))
    extra = tmp_path / 'extra'
    for i in range(3):
        save_image(extra / f'part{i}.jpg', seed=1000 + i)
    assert call('--unlabelled-dir', str(extra))[0] == 0
    annotations = tmp_path / 'out/x/annotations'
    for path in annotations.rglob('unlabelled.json'):
        content = json.loads(path.read_text())
        names = {image['file_name'] for image in content['images']}
        assert {f'unlabelled/part{i}.jpg' for i in range(3)} <= names
        assert content['annotations'] == []
    leaked = extra / 'leak.jpg'
    leaked.write_bytes((source / 'JPEGImages' / 'part17.jpg').read_bytes())
    status, _, message = call('--unlabelled-dir', str(extra), '--force')
    assert status == 2
    assert 'leak.jpg' in message and 'duplicate across splits' in message
    status, page, _ = call('--unlabelled-dir', str(extra), '--force', '--fix')
    assert status == 0
    assert 'left out image unlabelled/leak.jpg' in page
    assert not (tmp_path / 'out/x/images/unlabelled/leak.jpg').exists()


@pytest.mark.parametrize(
    'arguments, message',
    [
        (('--fractions', '0.4', '40'), '--fractions 40 is outside (0, 1]'),
        (('--fractions', '0'), '--fractions 0 is outside (0, 1]'),
        (('--fractions', 'nan'), '--fractions nan is outside (0, 1]'),
        (('--calibration-fraction', '1'), '--calibration-fraction 1 is outside (0, 1)'),
        (('--val-fraction', '2'), '--val-fraction 2 is outside (0, 1)'),
        (('--split', 'nowhere.txt'), 'nowhere.txt does not exist'),
        (('--unlabelled-dir', 'nowhere'), '--unlabelled-dir nowhere is no folder'),
        (('--classes', 'a', 'a'), '--classes names a class twice'),
        (('--layout', 'coco'), 'is not of layout coco'),
        (('--name', '../x'), "--name '../x' is no plain folder name"),
    ],
)
def test_arguments_at_fault_get_one_sentence(call, tmp_path, arguments, message):
    make_voc(tmp_path / 'source')
    status, _, error = call(*arguments)
    assert status == 2
    assert message in error
    # Progress bars share the stream; the error itself is its last line.
    assert error.rstrip().split('\n')[-1].startswith('error: ')
    assert not list(tmp_path.glob('out/*'))


def test_missing_source(call, tmp_path):
    status, _, error = call(source=tmp_path / 'nowhere')
    assert status == 2
    assert 'nowhere does not exist' in error


def test_existing_data_set_is_kept_refused_or_replaced(call, tmp_path):
    source = make_voc(tmp_path / 'source')
    assert call()[0] == 0
    target = tmp_path / 'out' / 'x'
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in target.rglob('*') if p.is_file()}
    status, page, _ = call()
    assert status == 0
    assert 'already prepared' in page
    status, _, error = call('--seeds', '7')
    assert status == 2
    assert '--force' in error
    assert '48 files removed (annotations/100pct_seed0/burn_in.json, ' in error
    assert '16 files added (annotations/100pct_seed7/burn_in.json, ' in error
    after = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in target.rglob('*') if p.is_file()}
    assert before == after
    write(source / 'Annotations' / 'part3.xml', voc_xml([('dent', (1, 2, 3, 4))]))
    assert call()[0] == 2
    status, page, _ = call('--seeds', '7', '--force')
    assert status == 0
    assert 'replacing' in page
    assert (target / 'annotations/40pct_seed7').is_dir()
    assert not (target / 'annotations/40pct_seed0').exists()
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['x']


def test_files_of_others_are_never_replaced(call, tmp_path):
    make_voc(tmp_path / 'source')
    assert call()[0] == 0
    write(tmp_path / 'out/x/my_notes.txt', 'precious')
    assert 'already prepared' in call()[1]
    status, _, error = call('--seeds', '7', '--force')
    assert status == 2
    assert 'my_notes.txt' in error
    assert (tmp_path / 'out/x/my_notes.txt').read_text() == 'precious'


@pytest.mark.parametrize('existing', [False, True])
def test_interruption_leaves_no_half_data_set(call, tmp_path, monkeypatch, existing):
    make_voc(tmp_path / 'source')
    if existing:
        assert call('--seeds', '7')[0] == 0
    out = tmp_path / 'out'
    before = {p: p.read_bytes() for p in out.rglob('*') if p.is_file()}
    copy = writing.shutil.copyfile
    copied = []

    def interrupted(source, target):
        if len(copied) == 5:
            raise KeyboardInterrupt
        copied.append(target)
        return copy(source, target)

    monkeypatch.setattr(writing.shutil, 'copyfile', interrupted)
    with pytest.raises(KeyboardInterrupt):
        call('--force')
    assert {p: p.read_bytes() for p in out.rglob('*') if p.is_file()} == before
    monkeypatch.undo()
    assert call('--force')[0] == 0


def test_leavings_of_a_killed_run_are_removed(call, tmp_path):
    make_voc(tmp_path / 'source')
    dead = tmp_path / 'out' / f'.x.partial-{2**22 + 1}'
    alive = tmp_path / 'out' / f'.x.partial-{os.getppid()}'
    write(dead / 'a', '')
    write(alive / 'a', '')
    assert call()[0] == 0
    assert not dead.exists()
    assert alive.exists()


def test_needs_nothing_heavy():
    """Data preparation must start at once, also where torch is not installed."""
    package = Path(__file__).parents[1] / 'mmdsym' / 'datasets' / 'preparation'
    modules = [p.stem for p in (package / 'sources').glob('[a-z]*.py')]
    lines = ['import sys, types']
    # The package's own face may import what it likes; only the preparation code is looked at.
    for name in ('mmdsym', 'mmdsym.datasets'):
        folder = package.parents[1 - name.count('.')]
        lines.append(f'm = types.ModuleType({name!r}); m.__path__ = [{str(folder)!r}]')
        lines.append(f'sys.modules[{name!r}] = m')
    lines.append('import mmdsym.datasets.preparation.prepare, mmdsym.datasets.preparation.demo')
    lines += [f'import mmdsym.datasets.preparation.sources.{module}' for module in modules]
    lines.append('print({m for m in ("torch", "mmengine", "mmdet", "mmcv") if m in sys.modules})')
    found = subprocess.run(
        [sys.executable, '-c', '\n'.join(lines)], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == 'set()'
