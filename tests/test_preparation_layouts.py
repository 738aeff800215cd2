"""Every layout, as a folder and as a zip, becomes the same kind of data set."""

import json
import shutil
from pathlib import Path

import pytest
from preparation_data import BOX, HEIGHT, MAKERS, NEU_CLASSES, WIDTH, save_image, voc_xml, write

from mmdsym.datasets.preparation.archive import open_source
from mmdsym.datasets.preparation.assignment import assign_splits
from mmdsym.datasets.preparation.boxes import edges_to_coco
from mmdsym.datasets.preparation.prepare import Choices, prepare
from mmdsym.datasets.preparation.sources.read import read_source, recognise
from mmdsym.errors import UserError

SPLIT_SIZES = {
    'neu': (36, 12),
    'neu-split': (36, 12),
    'neu-yolo': (36, 12),
    'yolo images/train': (12, 4),
    'yolo train/images': (12, 4),
    'voc': (16, 4),
    'voc beside': (10, 5),
    'coco one json': (16, 4),
    'coco annotations/': (16, 4),
    'coco roboflow': (16, 4),
}


def run(source: Path, out: Path, split=('default',), **options) -> dict[str, dict]:
    """Prepares a source; returns its documents by path below annotations/."""
    classes = options.pop('classes', None)
    with open_source(source, out) as root:
        read = read_source(root, options.pop('layout', 'auto'), classes)
        assign_splits(read, split, 0.2)
        prepare(read, 'x', out, Choices([0.5, 1.0], [0]), **options)
    folder = out / 'x' / 'annotations'
    return {
        path.relative_to(folder).with_suffix('').as_posix(): json.loads(path.read_text())
        for path in folder.rglob('*.json')
    }


def files(document: dict) -> set[str]:
    return {image['file_name'] for image in document['images']}


@pytest.mark.parametrize('layout', MAKERS)
def test_layout(tmp_path, layout):
    make, recognised = MAKERS[layout]
    source = make(tmp_path / 'source')
    assert recognise(source) == recognised
    documents = run(source, tmp_path / 'out')
    train, val = documents['train'], documents['val']
    assert (len(train['images']), len(val['images'])) == SPLIT_SIZES[layout]
    assert not files(train) & files(val)
    classes = NEU_CLASSES if 'neu' in layout else None
    for document in documents.values():
        names = [category['name'] for category in document['categories']]
        assert [category['id'] for category in document['categories']] == [
            *range(1, len(names) + 1)
        ]
        assert set(names) == set(classes or ['dent', 'crack'])
        assert classes is None or names == classes
        for image in document['images']:
            assert (tmp_path / 'out/x/images' / image['file_name']).is_file()
            assert (image['width'], image['height']) == (WIDTH, HEIGHT)
    for document in (train, val):
        assert len(document['annotations']) == len(document['images'])
        for annotation in document['annotations']:
            assert annotation['bbox'] == pytest.approx(edges_to_coco(BOX), abs=1e-3)


@pytest.mark.parametrize('layout', ['neu', 'neu-split', 'neu-yolo'])
def test_each_copy_of_neu_gives_the_same_choices_and_labels(tmp_path, layout):
    reference = run(MAKERS['neu'][0](tmp_path / 'reference'), tmp_path / 'a')
    documents = run(MAKERS[layout][0](tmp_path / 'copy'), tmp_path / 'b')
    for part in ('train', 'val', '50pct_seed0/labelled', '50pct_seed0/calibration'):
        assert files(documents[part]) == files(reference[part])
        ids = {i['id']: i['file_name'].rsplit('_', 1)[0] for i in documents[part]['images']}
        names = {c['id']: c['name'] for c in documents[part]['categories']}
        for annotation in documents[part]['annotations']:
            assert names[annotation['category_id']] == ids[annotation['image_id']]


def test_zip_and_wrapped_folder_give_the_same(tmp_path):
    MAKERS['voc'][0](tmp_path / 'source' / 'wrapper' / 'data')
    packed = shutil.make_archive(str(tmp_path / 'packed'), 'zip', tmp_path / 'source')
    assert run(Path(packed), tmp_path / 'a') == run(tmp_path / 'source', tmp_path / 'b')
    assert [path.name for path in (tmp_path / 'a').iterdir()] == ['x']


def test_no_label_of_unlabelled_or_validation_images_leaks(tmp_path):
    documents = run(MAKERS['voc'][0](tmp_path / 'source'), tmp_path / 'out')
    held_out = files(documents['val'])
    for name, document in documents.items():
        if name.endswith('unlabelled'):
            assert document['annotations'] == []
            assert document['images']
        if name != 'val':
            assert not files(document) & held_out
    half = '50pct_seed0'
    assert not files(documents[f'{half}/labelled']) & files(documents[f'{half}/unlabelled'])
    assert not files(documents[f'{half}/burn_in']) & files(documents[f'{half}/calibration'])
    # Ids mean the same image and the same box in all documents.
    known = {i['file_name']: i['id'] for i in documents['train']['images']}
    boxes = {a['id']: a for a in documents['train']['annotations']}
    for part in ('labelled', 'burn_in', 'calibration'):
        for image in documents[f'{half}/{part}']['images']:
            assert known[image['file_name']] == image['id']
        for annotation in documents[f'{half}/{part}']['annotations']:
            assert boxes[annotation['id']] == annotation


def test_names_that_collide_keep_their_folders(tmp_path):
    for folder in ('line1', 'line2'):
        for i in range(6):
            path = tmp_path / 'source' / folder / f'part{i}.png'
            save_image(path, seed=i + 100 * (folder == 'line2'))
            write(path.with_suffix('.xml'), voc_xml([('dent', BOX)]))
    documents = run(tmp_path / 'source', tmp_path / 'out')
    everything = files(documents['train']) | files(documents['val'])
    assert everything == {f'{f}/part{i}.png' for f in ('line1', 'line2') for i in range(6)}
    for name in everything:
        original = (tmp_path / 'source' / name).read_bytes()
        assert (tmp_path / 'out/x/images' / name).read_bytes() == original


def test_image_sets_decide_the_split_of_a_voc_folder(tmp_path):
    source = MAKERS['voc'][0](tmp_path / 'source')
    write(source / 'ImageSets/Main/train.txt', '\n'.join(f'part{i}' for i in range(10)))
    write(source / 'ImageSets/Main/val.txt', '\n'.join(f'part{i}' for i in range(10, 15)))
    documents = run(source, tmp_path / 'out')
    assert files(documents['val']) == {f'part{i}.jpg' for i in range(10, 15)}
    assert len(documents['train']['images']) == 10


def test_three_splits_are_kept(tmp_path):
    source = MAKERS['voc beside'][0](tmp_path / 'source')
    documents = run(source, tmp_path / 'out')
    assert len(documents['test']['images']) == 5


def test_list_files_decide_the_split(tmp_path):
    source = MAKERS['voc'][0](tmp_path / 'source')
    train = write(tmp_path / 'train.txt', '\n'.join(f'JPEGImages/part{i}.jpg' for i in range(8)))
    val = write(tmp_path / 'val.txt', 'part8\npart9.jpg\n')
    documents = run(source, tmp_path / 'out', [str(train), str(val)])
    assert files(documents['val']) == {'part8.jpg', 'part9.jpg'}
    assert len(documents['train']['images']) == 8
    documents = run(source, tmp_path / 'out2', [str(train)])
    assert len(documents['val']['images']) == 12
    with pytest.raises(UserError, match='in both lists'):
        run(source, tmp_path / 'out3', [str(train), str(train)])
    write(val, 'part99')
    with pytest.raises(UserError, match="'part99'"):
        run(source, tmp_path / 'out3', [str(train), str(val)])


def test_paper_lists_make_their_own_folder(tmp_path):
    source = MAKERS['neu'][0](tmp_path / 'source')
    stems = sorted(path.stem for path in (source / 'IMAGES').iterdir())
    train = [s for s in stems if not s.endswith('_1')]
    lists = {
        'train': train,
        'test': [s for s in stems if s.endswith('_1')],
        'labeled': train[::5],
        'unlabeled': [s for s in train if s not in train[::5]],
    }
    with pytest.raises(UserError, match='--split paper needs'):
        run(source, tmp_path / 'out', ['paper'])
    for part, names in lists.items():
        write(source / 'splits' / f'paper_{part}.txt', '\n'.join(names))
    documents = run(source, tmp_path / 'out', ['paper'])
    assert files(documents['val']) == {f'{s}.jpg' for s in lists['test']}
    assert files(documents['paper_seed0/labelled']) == {f'{s}.jpg' for s in lists['labeled']}
    assert files(documents['paper_seed0/unlabelled']) == {f'{s}.jpg' for s in lists['unlabeled']}


def test_yolo_without_names_needs_classes(tmp_path):
    source = MAKERS['yolo images/train'][0](tmp_path / 'source')
    (source / 'data.yaml').unlink()
    with pytest.raises(UserError, match='--classes'):
        run(source, tmp_path / 'out')
    documents = run(source, tmp_path / 'out', classes=['dent', 'crack'])
    assert [c['name'] for c in documents['train']['categories']] == ['dent', 'crack']


def test_classes_fix_the_order(tmp_path):
    source = MAKERS['voc'][0](tmp_path / 'source')
    documents = run(source, tmp_path / 'out', classes=['dent', 'crack'])
    assert [c['name'] for c in documents['train']['categories']] == ['dent', 'crack']
    assert [c['name'] for c in run(source, tmp_path / 'b')['train']['categories']] == [
        'crack',
        'dent',
    ]


def test_zero_based_voc_boxes_are_taken_as_they_stand(tmp_path):
    for i in range(10):
        save_image(tmp_path / 'source' / f'part{i}.png')
        # Writing edges (1, 1) as VOC would add 1, so (-1, -1) writes zeros.
        write(tmp_path / 'source' / f'part{i}.xml', voc_xml([('dent', (-1, -1, 20, 10))]))
    documents = run(tmp_path / 'source', tmp_path / 'out')
    assert documents['train']['annotations'][0]['bbox'] == [0, 0, 20, 10]


def test_images_without_annotation_become_unlabelled(tmp_path):
    source = MAKERS['voc'][0](tmp_path / 'source')
    save_image(source / 'JPEGImages' / 'bare.jpg')
    write(source / 'Annotations' / 'part0.xml', voc_xml([]))
    documents = run(source, tmp_path / 'out')
    assert 'bare.jpg' in files(documents['50pct_seed0/unlabelled'])
    assert 'bare.jpg' not in files(documents['train']) | files(documents['val'])
    assert 'part0.jpg' in files(documents['train']) | files(documents['val'])
    card = json.loads((tmp_path / 'out/x/dataset_card.json').read_text())
    assert card['images_without_annotation'] == 1
    assert sum(split['empty_images'] for split in card['splits'].values()) == 1


def test_unknown_layout_says_what_is_understood(tmp_path):
    save_image(tmp_path / 'source' / 'a.png')
    with pytest.raises(UserError, match='1 images.*voc.*yolo'):
        recognise(tmp_path / 'source')
    with pytest.raises(UserError, match='not of layout neu'):
        read_source(tmp_path / 'source', 'neu')


def test_two_jsons_for_one_split_are_refused(tmp_path):
    source = MAKERS['coco annotations/'][0](tmp_path / 'source')
    annotations = source / 'annotations'
    shutil.copy(annotations / 'instances_train2017.json', annotations / 'other_train.json')
    with pytest.raises(UserError, match='both describe train'):
        read_source(source)


def test_xml_entities_are_not_expanded(tmp_path):
    source = MAKERS['voc'][0](tmp_path / 'source')
    secret = write(tmp_path / 'secret.txt', 'dent')
    text = voc_xml([('&s;', BOX)])
    declaration = f'<!DOCTYPE x [<!ENTITY s SYSTEM "file://{secret}">]>'
    write(source / 'Annotations' / 'part0.xml', declaration + text)
    with pytest.raises(UserError, match='part0.xml'):
        run(source, tmp_path / 'out')
