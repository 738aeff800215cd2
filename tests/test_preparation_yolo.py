"""YOLO folders as they come: their own split, their names of classes, their names of files."""

import codecs
from collections import Counter
from pathlib import Path

import pytest
from preparation_data import BOX, make_voc, make_yolo, save_image, write, yolo_txt

from mmdsym.datasets.preparation.records import Source
from mmdsym.datasets.preparation.sources.read import read_source
from mmdsym.errors import UserError

NAMES = 'names: [dent, crack]\n'


def yolo(root: Path, folders: dict[str, range], yaml: str = NAMES) -> Path:
    """Images below images/<folder>, their labels below labels/<folder>."""
    for folder, numbers in folders.items():
        for i in numbers:
            save_image(root / 'images' / folder / f'part{i}.png')
            write(root / 'labels' / folder / f'part{i}.txt', yolo_txt([(i % 2, BOX)]))
    write(root / 'data.yaml', yaml)
    return root


def sizes(source: Source) -> dict:
    return dict(Counter(image.split for image in source.images))


TWO = {'a': range(6), 'b': range(6, 8)}


@pytest.mark.parametrize(
    ('train', 'val'),
    [('train2017', 'val2017'), ('train_images', 'val_images'), ('set-train', 'Valid_1')],
)
def test_folders_may_have_more_in_their_names_than_the_split(tmp_path, train, val):
    root = yolo(tmp_path, {train: range(6), val: range(6, 8)})
    assert sizes(read_source(root)) == {'train': 6, 'val': 2}


def test_a_folder_about_something_else_is_no_split(tmp_path):
    root = yolo(tmp_path, {'test_bench': range(6), 'line_2': range(6, 8)})
    assert sizes(read_source(root)) == {None: 8}


def test_a_folder_that_is_the_word_counts_first_and_two_words_count_nothing(tmp_path):
    root = yolo(tmp_path, {'train/crash_test': range(6), 'val': range(6, 8), 'train_val': range(9)})
    assert sizes(read_source(root)) == {'train': 6, 'val': 2, None: 9}


@pytest.mark.parametrize(
    'statement',
    [
        'train: images/a\nval: images/b\n',
        'path: .\ntrain: images/a/\nval: [./images/b]\n',
        'path: ../datasets/parts\ntrain: images/a\nval: images/b\ntest: images/b\n',
        'train: ../images/a\nvalid: ..\\images\\b\n',
        'path: images\ntrain: a\nval: b\n',
        'train: /content/parts/images/a\nval: C:\\parts\\images\\b\n',
    ],
)
def test_data_yaml_names_the_folders_of_the_splits(tmp_path, statement):
    source = read_source(yolo(tmp_path / 'parts', TWO, NAMES + statement))
    assert sizes(source) == {'train': 6, 'val': 2} and not source.notes
    assert {i.path.parent.name for i in source.images if i.split == 'val'} == {'b'}


@pytest.mark.parametrize('line', ['./images/a/{}', 'images/a/{}', '/content/x/images/a/{}'])
def test_data_yaml_names_lists(tmp_path, line):
    root = yolo(tmp_path, {'a': range(8)}, NAMES + 'train: train.txt\nval: lists/val.txt\n')
    for file, numbers in (('train.txt', range(5)), ('lists/val.txt', range(5, 7))):
        lines = [line.format(f'part{i}.png') for i in numbers]
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).write_bytes(codecs.BOM_UTF8 + '\r\n'.join(lines).encode())
    source = read_source(root)
    assert sizes(source) == {'train': 5, 'val': 2, None: 1} and not source.notes


def test_data_yaml_counts_before_folders_which_say_the_rest(tmp_path):
    folders = {'train': range(6), 'val': range(6, 8), 'test': range(8, 10)}
    root = yolo(tmp_path, folders, NAMES + 'train: images/val\nval: images/train\n')
    assert sizes(read_source(root)) == {'train': 2, 'val': 6, 'test': 2}


def test_a_split_that_is_not_found_is_told(tmp_path):
    source = read_source(yolo(tmp_path, TWO, NAMES + 'train: images/a\nval: images/gone\n'))
    (note,) = source.notes
    assert 'data.yaml names images/gone for val' in note and 'passed over' in note
    assert sizes(source) == {'train': 6, None: 2}


def test_lines_that_are_not_found_are_told(tmp_path):
    root = yolo(tmp_path, TWO, NAMES + 'train: images/a\nval: val.txt\n')
    write(root / 'val.txt', 'images/b/part6.png\nimages/b/part99.png\n')
    source = read_source(root)
    assert sizes(source) == {'train': 6, 'val': 1, None: 1}
    assert source.notes[0].startswith('1 of 2 lines of val.txt name no image')


def test_images_that_train_and_evaluate_are_told_and_the_split_is_not_used(tmp_path):
    root = yolo(tmp_path, TWO, NAMES + 'train: images\nval: images/b\n')
    source = read_source(root)
    assert sizes(source) == {None: 8}
    assert 'data.yaml has 2 images both to train and to evaluate' in source.notes[0]


@pytest.mark.parametrize('value', ['3', 'true', '{a: b}', '', '[1, {}]', '"a\\0b"', 'x' * 5000])
def test_statements_that_are_no_places_do_no_harm(tmp_path, value):
    assert sizes(read_source(yolo(tmp_path, TWO, f'{NAMES}path: {value}\nval: {value}\n'))) == {
        None: 8
    }


@pytest.mark.parametrize('file', ['classes.txt', 'obj.names', 'data.yaml'])
def test_a_mark_before_the_classes_is_no_part_of_a_name(tmp_path, file):
    root = make_yolo(tmp_path)
    (root / 'data.yaml').unlink()
    text = NAMES if file == 'data.yaml' else 'dent\r\ncrack\r\n'
    (root / file).write_bytes(codecs.BOM_UTF8 + text.encode())
    for label in (root / 'labels').rglob('*.txt'):
        label.write_bytes(codecs.BOM_UTF8 + label.read_bytes())
    source = read_source(root)
    assert source.classes == ['dent', 'crack'] and not source.problems


@pytest.mark.parametrize('text', ['Riß\n'.encode('latin-1'), 'dent\n'.encode('utf-16')])
def test_classes_in_another_encoding_are_refused_in_one_sentence(tmp_path, text):
    root = make_yolo(tmp_path)
    (root / 'data.yaml').unlink()
    (root / 'classes.txt').write_bytes(text)
    with pytest.raises(UserError, match=r'classes\.txt cannot be read .*UTF-8 .*save it as such$'):
        read_source(root)


def test_image_sets_may_have_a_mark_and_are_refused_in_another_encoding(tmp_path):
    root = make_voc(tmp_path)
    file = write(root / 'ImageSets/Main/val.txt', '')
    file.write_bytes(codecs.BOM_UTF8 + b'part0\r\npart1\r\n')
    assert sizes(read_source(root)) == {'val': 2, None: 18}
    file.write_bytes('Riß'.encode('latin-1'))
    with pytest.raises(UserError, match=r'val\.txt cannot be read as text in UTF-8'):
        read_source(root)


def test_labels_that_are_called_like_lists_count_beside_their_images(tmp_path):
    stems = ['test', 'train', 'Val', 'valid', 'README', 'part']
    for stem in stems:
        save_image(tmp_path / f'{stem}.png')
        write(tmp_path / f'{stem}.txt', yolo_txt([(0, BOX)]))
    write(tmp_path / 'classes.txt', 'dent\n')
    source = read_source(tmp_path)
    assert not source.problems
    assert {image.stem for image in source.images if image.boxes} == set(stems)


def test_lists_and_notes_without_an_image_of_their_name_are_no_labels(tmp_path):
    save_image(tmp_path / 'part.png')
    for file, text in {
        'part.txt': yolo_txt([(0, BOX)]),
        'train.txt': 'part.png\n',
        'README.roboflow.txt': 'hello',
        'classes.txt': 'dent\n',
    }.items():
        write(tmp_path / file, text)
    source = read_source(tmp_path)
    assert not source.problems and len(source.images[0].boxes) == 1
