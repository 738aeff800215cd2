"""Labels that come back: every format, no human label lost, nothing of the old data touched."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from conftest import REPOSITORY
from preparation_data import (
    BOX,
    HEIGHT,
    WIDTH,
    coco_json,
    make_coco_one,
    save_image,
    write,
    yolo_txt,
)

from mmdsym.datasets.preparation.merging.finding import ImageFinder
from mmdsym.datasets.preparation.merging.proposals import FILE_NAME, as_record
from mmdsym.datasets.preparation.records import Box, SourceImage

CLASSES = ['dent', 'crack']
OTHER = (10, 6, 30, 20)


@pytest.fixture(scope='module')
def main():
    spec = importlib.util.spec_from_file_location(
        'prepare', REPOSITORY / 'tools/prepare_dataset.py'
    )
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool.main


@pytest.fixture
def prepare(main, tmp_path, capsys):
    """Runs the tool below tmp_path/data; returns exit status and what it printed."""

    def run(*arguments) -> tuple[int, str]:
        status = 0
        try:
            main([*map(str, arguments), '--out', str(tmp_path / 'data')])
        except SystemExit as stop:
            status = stop.code
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


@pytest.fixture
def old(prepare, tmp_path):
    """A data set of twenty labelled images and six without labels, two of them of one name."""
    source = make_coco_one(tmp_path / 'source')
    for i in range(4):
        save_image(tmp_path / 'more' / f'new{i}.png')
    save_image(tmp_path / 'more/a/same.png', seed=1)
    save_image(tmp_path / 'more/b/same.png', seed=2)
    status, told = prepare(
        source, '--name', 'old', '--unlabelled-dir', tmp_path / 'more', '--fractions', 0.5, 1.0,
        '--seeds', 0,
    )  # fmt: skip
    assert status == 0, told
    return tmp_path / 'data/old'


def read(root: Path, part: str) -> dict:
    return json.loads((root / 'annotations' / f'{part}.json').read_text())


def labels(root: Path, part: str) -> dict[str, list]:
    """Image name to its boxes, as class name and COCO box."""
    content = read(root, part)
    names = {c['id']: c['name'] for c in content['categories']}
    found = {image['id']: [] for image in content['images']}
    for row in content['annotations']:
        found[row['image_id']].append((names[row['category_id']], *row['bbox']))
    return {image['file_name']: found[image['id']] for image in content['images']}


def origins(root: Path, part: str = 'train') -> dict[str, str]:
    return {i['file_name']: i.get('label_source') for i in read(root, part)['images']}


def coco(path: Path, images: list) -> Path:
    return write(path, coco_json(images, CLASSES))


def yolo(path: Path, images: list) -> Path:
    for name, boxes in images:
        text = yolo_txt([(CLASSES.index(label), edges) for label, edges in boxes])
        write(path / 'labels' / Path(name).with_suffix('.txt'), text)
    write(path / 'classes.txt', '\n'.join(CLASSES))
    return path


def region(label: str, edges: tuple) -> dict:
    x1, y1, x2, y2 = edges
    value = {
        'x': 100 * x1 / WIDTH,
        'y': 100 * y1 / HEIGHT,
        'width': 100 * (x2 - x1) / WIDTH,
        'height': 100 * (y2 - y1) / HEIGHT,
        'rotation': 0,
        'rectanglelabels': [label],
    }
    return {'type': 'rectanglelabels', 'value': value}


def task(link: str, *annotations: list, **data) -> dict:
    return {
        'data': {'image': link, **data},
        'annotations': [{'result': result, 'was_cancelled': False} for result in annotations],
        'predictions': [{'result': [region('crack', (0, 0, 9, 9))]}],
    }


def label_studio(path: Path, images: list) -> Path:
    tasks = [
        task(f'/data/local-files/?d=parts/{name}', [region(*box) for box in boxes])
        for name, boxes in images
    ]
    return write(path, json.dumps(tasks))


WRITERS = {
    'coco': lambda folder, images: coco(folder / 'export.json', images),
    'yolo': lambda folder, images: yolo(folder / 'export', images),
    'label studio': lambda folder, images: label_studio(folder / 'export.json', images),
}


@pytest.mark.parametrize('kind', WRITERS)
def test_new_labels_come_into_a_new_data_set(prepare, old, tmp_path, kind):
    before = {p: p.read_bytes() for p in old.rglob('*') if p.is_file()}
    trained = sorted(labels(old, 'train'))[0]
    ((unchanged_label, *_),) = labels(old, 'train')[trained]
    export = WRITERS[kind](
        tmp_path,
        [
            ('unlabelled/new1.png', [('crack', OTHER), ('dent', BOX)]),
            ('unlabelled/b/same.png', [('dent', OTHER)]),
            ('unlabelled/new2.png', []),
            # Rounded, as programs do.
            (trained, [(unchanged_label, tuple(value + 0.4 for value in BOX))]),
        ],
    )
    status, told = prepare(export, '--merge', old, '--name', 'new')
    assert status == 0, told
    new = tmp_path / 'data/new'
    for part in ('train', '50pct_seed0/labelled', '100pct_seed0/labelled'):
        found = labels(new, part)
        boxes = [(label, *(round(v, 2) for v in box)) for label, *box in (
            found['unlabelled/new1.png'] + found['unlabelled/b/same.png']
        )]  # fmt: skip
        assert boxes == [('crack', 10, 6, 20, 14), ('dent', 4, 5, 10, 20), ('dent', 10, 6, 20, 14)]
        assert found['unlabelled/new2.png'] == []
    source = origins(new)
    assert source['unlabelled/new1.png'] == source['unlabelled/new2.png'] == 'corrected'
    assert source[trained] == 'human' and set(origins(new, 'val').values()) == {'human'}
    assert '3 images were labelled anew, 1 came back unchanged' in told
    assert '1 images came back without any box' in told
    for split in ('50pct_seed0', '100pct_seed0'):
        burn_in, held = labels(new, f'{split}/burn_in'), labels(new, f'{split}/calibration')
        assert labels(old, f'{split}/calibration').items() <= held.items()
        assert burn_in | held == labels(new, f'{split}/labelled')
        assert not set(labels(new, f'{split}/unlabelled')) & set(burn_in | held)
        assert 'unlabelled/a/same.png' in labels(new, f'{split}/unlabelled')
    # The label that came back belongs to the labelled ones now, whatever the share was.
    assert trained in labels(new, '50pct_seed0/labelled')
    assert {p: p.read_bytes() for p in old.rglob('*') if p.is_file()} == before
    assert '' not in {image.get('label_source', '-') for image in read(new, 'val')['images']}


@pytest.mark.parametrize('prefer', ['new', 'old'])
def test_other_labels_of_people_are_a_conflict(prepare, old, tmp_path, prefer):
    train, val = (sorted(labels(old, part))[0] for part in ('train', 'val'))
    before = {**labels(old, 'train'), **labels(old, 'val')}
    label = before[train][0][0]
    other = next(name for name in CLASSES if name != label)
    images = [(train, [(other, OTHER)]), (val, []), ('unlabelled/new0.png', [('dent', BOX)])]
    export = coco(tmp_path / 'export.json', images)
    status, told = prepare(export, '--merge', old, '--name', 'new')
    assert status == 2 and not (tmp_path / 'data/new').exists()
    assert '2 images have other labels already' in told
    lines = told.splitlines()
    moved = coco(tmp_path / 'moved.json', [(train, [(label, OTHER)])])
    told = prepare(moved, '--merge', old, '--name', 'new')[1]
    assert f'  {train}: 1 {label} before and now, at other places' in told.splitlines()
    assert f'  {val}: 1 {before[val][0][0]} before, no box now' in lines
    assert f'  {train}: 1 {label} before, 1 {other} now' in lines
    status, told = prepare(export, '--merge', old, '--name', 'new', '--prefer', prefer)
    assert status == 0 and f'labels of {train}: 1' in told
    found = {**labels(tmp_path / 'data/new', 'train'), **labels(tmp_path / 'data/new', 'val')}
    after = before if prefer == 'old' else {train: [(other, 10, 6, 20, 14)], val: []}
    assert found[train] == after[train] and found[val] == after[val]
    assert found['unlabelled/new0.png']
    source = origins(tmp_path / 'data/new')
    assert source[train] == ('human' if prefer == 'old' else 'corrected')


def test_a_second_merge_keeps_where_earlier_labels_came_from(prepare, old, tmp_path):
    first = coco(tmp_path / 'first.json', [('new0.png', [('dent', BOX)])])
    second = coco(tmp_path / 'second.json', [('new1.png', [('dent', BOX)])])
    assert prepare(first, '--merge', old, '--name', 'b', '--label-source', 'ann')[0] == 0
    assert prepare(second, '--merge', tmp_path / 'data/b', '--name', 'c')[0] == 0
    found = origins(tmp_path / 'data/c')
    assert found['unlabelled/new0.png'] == 'ann' and found['unlabelled/new1.png'] == 'corrected'


def proposed(folder: Path, boxes: dict[str, list]) -> Path:
    """A record of proposals, as tools/suggest_labels.py writes one."""
    proposals = {n: [Box(*edges, label=label) for label, edges in own] for n, own in boxes.items()}
    return write(folder / FILE_NAME, json.dumps(as_record('run', proposals))).parent


@pytest.mark.parametrize('kind', WRITERS)
def test_labels_that_came_back_as_proposed_need_a_look(prepare, old, tmp_path, kind):
    name, other = 'unlabelled/new1.png', 'unlabelled/new2.png'
    suggested = proposed(tmp_path / 'to_label', {name: [('crack', OTHER)], other: []})
    back = {name: [('crack', OTHER)], other: [('dent', BOX)]}
    export = WRITERS[kind](tmp_path, list(back.items()))
    options = ('--merge', old, '--suggested', suggested, '--name')
    status, told = prepare(export, *options, 'new')
    assert status == 0, told
    found = origins(tmp_path / 'data/new')
    assert found[other] == 'corrected'
    # Only Label Studio says that a person submitted what it exports.
    assert found.get(name) == ('accepted' if kind == 'label studio' else None)
    status, told = prepare(export, *options, 'all', '--untouched', 'accept')
    assert status == 0, told
    assert origins(tmp_path / 'data/all')[name] == 'accepted'


def packed(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder), 'zip', folder))


def as_cvat_writes(folder: Path, images: list) -> Path:
    return coco(folder / 'annotations/instances_default.json', images).parents[1]


PLACES = {
    'beside a zip': lambda root, images: (root, packed(as_cvat_writes(root / 'job_7', images))),
    'in a zip': lambda root, images: (root / 'job_7', as_cvat_writes(root / 'job_7', images)),
    'in a folder of a zip': lambda root, images: (
        root / 'job_7/task',
        as_cvat_writes(root / 'job_7/task', images).parent,
    ),
    'above a json': lambda root, images: (
        root,
        as_cvat_writes(root, images) / 'annotations/instances_default.json',
    ),
    'beside a folder': lambda root, images: (root, as_cvat_writes(root / 'job_7', images)),
}


@pytest.mark.parametrize('place', PLACES)
def test_the_record_of_proposals_is_found_by_itself(prepare, old, tmp_path, place):
    name, other = 'unlabelled/new1.png', 'unlabelled/new2.png'
    images = [(name, [('crack', OTHER)]), (other, [('dent', BOX)])]
    folder, export = PLACES[place](tmp_path / 'back', images)
    proposed(folder, {name: [('crack', OTHER)], other: []})
    # Another one, which belongs to something else, lies where the data sets are.
    write(tmp_path / 'data' / FILE_NAME, 'no record')
    if place.endswith('a zip'):
        export = packed(export) if export.is_dir() else export
    status, told = prepare(export, '--merge', old, '--name', 'new')
    assert status == 0, told
    assert f'1 images came back as proposed, such as {name}' in told
    assert f'No {FILE_NAME}' not in told
    assert f'Labels of {export.name} were merged into old.' in told
    assert name not in origins(tmp_path / 'data/new')


@pytest.mark.parametrize('kind', WRITERS)
def test_a_missing_record_of_proposals_is_told(prepare, old, tmp_path, kind):
    folder = tmp_path / 'far/away'
    export = WRITERS[kind](folder, [('unlabelled/new1.png', [('crack', OTHER)])])
    status, told = prepare(export, '--merge', old, '--name', 'new')
    assert status == 0, told
    card = json.loads((tmp_path / 'data/new/dataset_card.json').read_text())
    # Label Studio says which labels a person submitted.
    expected = kind != 'label studio'
    for text in (told, ' '.join(card['notes'])):
        assert (f'No {FILE_NAME} was found in or beside {export.name}' in text) == expected
        assert ('--suggested' in text) == expected


def test_a_proposal_never_replaces_a_label_of_a_person(prepare, old, tmp_path):
    trained = sorted(labels(old, 'train'))[0]
    suggested = proposed(tmp_path / 'to_label', {trained: [('crack', OTHER)]})
    back = [(trained, [('crack', OTHER)]), ('unlabelled/new1.png', [('dent', BOX)])]
    options = ('--merge', old, '--suggested', suggested, '--name', 'new', '--prefer', 'new')
    status, told = prepare(coco(tmp_path / 'back.json', back), *options)
    assert status == 0, told
    assert labels(tmp_path / 'data/new', 'train')[trained] == labels(old, 'train')[trained]
    assert origins(tmp_path / 'data/new')[trained] == 'human'


@pytest.mark.parametrize(
    'content, reason',
    [
        ('', 'is no record of proposals'),
        ('[]', 'is no record of proposals'),
        ('{"proposals": {"a": 3}, "sha256": ""}', 'is no record of proposals'),
        ('{"proposals": {"unlabelled/new1.png": []}, "sha256": ""}', 'was changed'),
    ],
)
def test_a_damaged_record_of_proposals_is_named(prepare, old, tmp_path, content, reason):
    back = [('unlabelled/new1.png', [('dent', BOX)])]
    export = coco(tmp_path / 'back.json', back)
    # It is found beside the export, too.
    write(tmp_path / FILE_NAME, content)
    status, told = prepare(export, '--merge', old, '--name', 'new')
    assert status == 2 and reason in told and FILE_NAME in told
    status, told = prepare(export, '--merge', old, '--name', 'new', '--suggested', old)
    assert status == 2 and 'tools/suggest_labels.py' in told
    assert not (tmp_path / 'data/new').exists()


def test_known_good_images_stay_told_apart(prepare, tmp_path):
    for i in range(3):
        save_image(tmp_path / 'good' / f'good{i}.png')
    source = make_coco_one(tmp_path / 'source')
    arguments = ('--known-good-dir', tmp_path / 'good', '--fractions', 1.0, '--seeds', 0)
    assert prepare(source, '--name', 'old', *arguments)[0] == 0
    images = [('good0.png', [('dent', BOX)]), ('good1.png', [])]
    export = coco(tmp_path / 'export.json', images)
    status, told = prepare(export, '--merge', tmp_path / 'data/old', '--name', 'new')
    assert status == 2 and 'known_good/good0.png: no box before, 1 dent now' in told
    merge = ('--merge', tmp_path / 'data/old', '--name', 'new', '--prefer', 'new')
    assert prepare(export, *merge)[0] == 0
    good = labels(tmp_path / 'data/new', '100pct_seed0/known_good')
    assert set(good) == {'known_good/good1.png', 'known_good/good2.png'}
    assert labels(tmp_path / 'data/new', '100pct_seed0/labelled')['known_good/good0.png']


def test_label_studio_takes_what_people_submitted_alone(prepare, old, tmp_path):
    cancelled = task('new3.png', [region('dent', BOX)])
    cancelled['annotations'][0]['was_cancelled'] = True
    turned = region('dent', (20, 10, 30, 15))
    turned['value']['rotation'] = 90
    polygon = {
        'type': 'polygonlabels',
        'value': {'points': [[10, 20], [50, 30], [25, 60]], 'polygonlabels': ['crack']},
    }
    remark = {'type': 'choices', 'value': {'choices': ['blurred']}}
    tasks = [
        task('/data/upload/3/1a2b3c4d-new0.png', [turned, remark]),
        task('s3://bucket/some%20where/new1.png?x=1', [polygon]),
        task('unguessable', [region('dent', BOX)], mmdsym_file='unlabelled/a/same.png'),
        task('new2.png'),
        cancelled,
    ]
    export = write(tmp_path / 'export.json', json.dumps(tasks))
    status, told = prepare(export, '--merge', old, '--name', 'new')
    assert status == 0, told
    found = labels(tmp_path / 'data/new', 'train')
    assert found['unlabelled/new0.png'] == [('dent', 15, 10, 5, 10)]
    assert found['unlabelled/new1.png'] == [('crack', 4, 6, 16, 12)]
    assert found['unlabelled/a/same.png'] == [('dent', 4, 5, 10, 20)]
    assert not {'unlabelled/new2.png', 'unlabelled/new3.png'} & set(found)


def edited_coco(change) -> str:
    content = json.loads(coco_json([('new0.png', [('dent', BOX)])], CLASSES))
    change(content)
    return json.dumps(content)


TASK = task('new0.png', [region('dent', BOX)])
MALFORMED = {
    'half.json': ('{"images": [', 'half.json is not readable as JSON'),
    'other.json': ('{"a": 1}', 'holds no labels that can be merged'),
    'box.json': (
        edited_coco(lambda c: c['annotations'][0].update(bbox=['a', 1, 2, 3])),
        'box.json: image unlabelled/new0.png: a box is unreadable',
    ),
    'unknown.json': (
        edited_coco(lambda c: c['images'][0].update(file_name='ghost.png')),
        'unknown.json: image ghost.png is none of the data set',
    ),
    'unclear.json': (
        edited_coco(lambda c: c['images'][0].update(file_name='same.png')),
        'image same.png may be unlabelled/a/same.png or unlabelled/b/same.png',
    ),
    'size.json': (
        edited_coco(lambda c: c['images'][0].update(width=99)),
        f'image new0.png has 99x{HEIGHT} pixels there, {WIDTH}x{HEIGHT} in the data set',
    ),
    'orphan.json': (
        edited_coco(lambda c: c['annotations'][0].update(image_id=77)),
        'orphan.json: annotations belong to image id 77, which is not listed',
    ),
    'class.json': (
        edited_coco(lambda c: c['categories'][0].update(name='dint')),
        "class 'dint' is none of dent, crack",
    ),
    'pre_labels.json': (
        edited_coco(lambda c: c.update(info={'unchecked_pre_labels': 'run'})),
        'holds pre-labels that nobody has corrected',
    ),
    'none.json': (json.dumps([task('new0.png')]), 'has no annotated task'),
    'brush.json': (
        json.dumps([task('new0.png', [{'type': 'brushlabels', 'value': {}}])]),
        'brush.json: image unlabelled/new0.png: a region is unreadable (its type brushlabels',
    ),
    'nan.json': (
        json.dumps([task('new0.png', [{'type': 'rectanglelabels', 'value': {'x': 'a'}}])]),
        'a region is unreadable',
    ),
    'nameless.json': (json.dumps([{**TASK, 'data': {'n': 3}}]), 'task 1 names no image'),
    'twice.json': (
        json.dumps([task('new0.png', [region('dent', BOX)], [region('dent', OTHER)])]),
        'image unlabelled/new0.png has 1 boxes once and 1 others; keep one of the two',
    ),
}


@pytest.mark.parametrize('name', MALFORMED)
def test_a_malformed_export_is_refused_with_file_and_cure(prepare, old, tmp_path, name):
    text, reason = MALFORMED[name]
    export = write(tmp_path / name, text)
    status, told = prepare(export, '--merge', old, '--name', 'new')
    assert status == 2 and reason in told and 'Traceback' not in told
    assert ';' in told.splitlines()[-1]
    assert not (tmp_path / 'data/new').exists()


def test_fix_leaves_out_what_cannot_be_read_and_takes_the_rest(prepare, old, tmp_path):
    images = [('new0.png', [('dent', BOX)]), ('ghost.png', []), ('new1.png', [('dent', BOX)])]
    content = json.loads(coco_json(images, CLASSES))
    content['annotations'][0]['bbox'] = 'wide'
    export = write(tmp_path / 'export.json', json.dumps(content))
    status, told = prepare(export, '--merge', old, '--name', 'new', '--fix')
    assert status == 0 and 'ignored' in told and 'ghost.png' in told
    found = labels(tmp_path / 'data/new', 'train')
    assert found['unlabelled/new1.png'] and 'unlabelled/new0.png' not in found
    assert 'unlabelled/new0.png' in labels(tmp_path / 'data/new', '100pct_seed0/unlabelled')


def test_yolo_needs_its_classes_and_good_lines(prepare, old, tmp_path):
    export = yolo(tmp_path / 'export', [('new0.png', [('dent', BOX)])])
    write(export / 'labels/new1.txt', '0 0.5 0.5\n')
    status, told = prepare(export, '--merge', old, '--name', 'new')
    assert status == 2 and 'new1.txt: image unlabelled/new1.png: line 1 is no YOLO label' in told
    (export / 'classes.txt').unlink()
    status, told = prepare(export, '--merge', old, '--name', 'new')
    assert status == 2 and 'neither data.yaml nor classes.txt' in told


def test_the_old_data_set_cannot_be_the_target(prepare, old, tmp_path):
    export = coco(tmp_path / 'export.json', [('new0.png', [('dent', BOX)])])
    status, told = prepare(export, '--merge', old, '--name', 'old', '--force')
    assert status == 2 and 'stays as it is' in told
    status, told = prepare(export, '--merge', tmp_path, '--name', 'new')
    assert status == 2 and 'is no prepared data set' in told
    shutil.copytree(old, tmp_path / 'spoilt')
    for text in ('{', '[]', '{"images": [{}], "annotations": [], "categories": []}'):
        write(tmp_path / 'spoilt/annotations/train.json', text)
        status, told = prepare(export, '--merge', tmp_path / 'spoilt', '--name', 'new')
        assert status == 2 and 'damaged' in told and 'prepare that data set again' in told
    status, told = prepare(export, '--merge', old, '--name', 'new', '--classes', 'dent')
    assert status == 2 and '--classes leaves out crack' in told
    status, told = prepare(tmp_path / 'source', '--name', 'new', '--prefer', 'new')
    assert status == 2 and '--merge' in told


def test_a_new_class_is_added_where_it_is_named(prepare, old, tmp_path):
    boxes = [('new0.png', [('scratch', BOX)])]
    export = write(tmp_path / 'export.json', coco_json(boxes, ['scratch']))
    status, told = prepare(export, '--merge', old, '--name', 'new')
    assert status == 2 and "class 'scratch' is none of" in told
    classes = ('--classes', 'dent', 'crack', 'scratch')
    assert prepare(export, '--merge', old, '--name', 'new', *classes)[0] == 0
    assert labels(tmp_path / 'data/new', 'train')['unlabelled/new0.png'][0][0] == 'scratch'


@pytest.mark.parametrize(
    ('reference', 'name'),
    [
        ('a.png', 'a.png'),
        ('some\\folder\\a.png', 'a.png'),
        ('1a2b3c4d-a.png', 'a.png'),
        ('left/b.png', 'left/b.png'),
        ('left/b', 'left/b.png'),
        ('x/right/b.jpg', 'right/b.png'),
        ('c.v1.jpg', 'c.v1.jpg'),
        ('d.jpg', 'd.jpg'),
        ('d.png', 'd.png'),
    ],
)
def test_images_are_found_by_what_exports_call_them(reference, name):
    names = ('a.png', 'left/b.png', 'right/b.png', 'c.v1.jpg', 'd.jpg', 'd.png')
    finder = ImageFinder([SourceImage(Path(n), n) for n in names])
    assert finder.find(reference).name == name
    for wrong in ('b.png', 'e.png', ''):
        with pytest.raises(LookupError, match='image '):
            finder.find(wrong)
