"""labelme folders: every shape becomes a box, and each wrong file is told with its cure."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from preparation_data import HEIGHT, WIDTH, save_image, write

from mmdsym.datasets.preparation.assignment import assign_splits
from mmdsym.datasets.preparation.mending import refuse
from mmdsym.datasets.preparation.prepare import Choices, prepare
from mmdsym.datasets.preparation.sources.read import read_source, recognise
from mmdsym.errors import UserError

RECTANGLE = {'label': 'dent', 'shape_type': 'rectangle', 'points': [[14, 25], [4, 5]]}


def mask_shape(rows: slice, columns: slice, corner=(3, 2)) -> dict:
    mask = np.zeros((10, 12), dtype=bool)
    mask[rows, columns] = True
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, format='PNG')
    x, y = corner
    return {
        'label': 'crack',
        'shape_type': 'mask',
        'points': [[x, y], [x + 11, y + 9]],
        'mask': base64.b64encode(stream.getvalue()).decode(),
    }


def labelme(path: Path, shapes: list, image: str = '') -> Path:
    content = {
        'version': '5.5.0',
        'shapes': shapes,
        'imagePath': image or f'{path.stem}.png',
        'imageData': None,
        'imageWidth': WIDTH,
        'imageHeight': HEIGHT,
    }
    return write(path, json.dumps(content))


@pytest.fixture
def folder(tmp_path):
    """Eight images with a json each, alternately of two classes."""
    root = tmp_path / 'source'
    for i in range(8):
        save_image(root / f'part{i}.png')
        shape = RECTANGLE if i % 2 else mask_shape(slice(2, 5), slice(1, 7))
        labelme(root / f'part{i}.json', [shape])
    return root


def only_boxes(root: Path, name: str) -> list[tuple]:
    image = next(i for i in read_source(root).images if i.path.name == name)
    return [(box.label, box.x1, box.y1, box.x2, box.y2) for box in image.boxes]


def test_a_labelme_folder_becomes_a_data_set(folder, tmp_path):
    assert recognise(folder) == 'labelme'
    source = read_source(folder)
    assert source.classes == ['crack', 'dent'] and not source.problems
    assign_splits(source, ['default'], 0.25)
    prepare(source, 'x', tmp_path / 'out', Choices([1.0], [0]))
    train = json.loads((tmp_path / 'out/x/annotations/train.json').read_text())
    boxes = {tuple(a['bbox']) for a in train['annotations']}
    assert boxes == {(4, 5, 10, 20), (4, 4, 6, 3)}


@pytest.mark.parametrize(
    ('shape', 'edges'),
    [
        (RECTANGLE, (4, 5, 14, 25)),
        ({'label': 'dent', 'points': [[4, 5], [9, 2], [14, 25]]}, (4, 2, 14, 25)),
        ({'label': 'dent', 'shape_type': 'circle', 'points': [[10, 9], [13, 13]]}, (5, 4, 15, 14)),
    ],
)
def test_shapes_become_the_boxes_around_them(folder, shape, edges):
    labelme(folder / 'part1.json', [shape])
    assert only_boxes(folder, 'part1.png') == [('dent', *edges)]


def test_a_mask_becomes_the_box_around_its_pixels(folder):
    assert only_boxes(folder, 'part0.png') == [('crack', 4, 4, 10, 7)]


def test_shapes_of_one_group_are_one_defect(folder):
    other = {'label': 'dent', 'shape_type': 'rectangle', 'points': [[20, 8], [30, 9]]}
    labelme(folder / 'part1.json', [{**s, 'group_id': 4} for s in (RECTANGLE, other)])
    assert only_boxes(folder, 'part1.png') == [('dent', 4, 5, 30, 25)]
    labelme(folder / 'part1.json', [RECTANGLE, other])
    assert len(only_boxes(folder, 'part1.png')) == 2


def test_a_json_in_another_folder_finds_its_image_by_the_name_inside(folder):
    labelme(folder / 'labels' / 'anything.json', [RECTANGLE], '..\\images\\extra.png')
    save_image(folder / 'images' / 'extra.png')
    assert only_boxes(folder, 'extra.png') == [('dent', 4, 5, 14, 25)]


def test_no_json_means_unlabelled_and_no_shape_means_no_defect(folder):
    save_image(folder / 'bare.png')
    labelme(folder / 'part1.json', [])
    source = read_source(folder)
    assign_splits(source, ['default'], 0.25)
    assert [image.path.name for image in source.unlabelled] == ['bare.png']
    assert [i.name for i in source.images if not i.boxes] == ['part1.png']


MALFORMED = {
    'half a json': ('{"shapes": [', 'not readable as JSON'),
    'no shapes': ('{"shapes": 3}', 'no list of labelme shapes'),
    'a line': (json.dumps({'shapes': [{**RECTANGLE, 'shape_type': 'line'}]}), 'shape 1 .*a line'),
    'no label': (json.dumps({'shapes': [{'points': [[1, 2], [3, 4]]}]}), 'shape 1'),
    'no points': (json.dumps({'shapes': [{'label': 'dent', 'points': []}]}), 'without points'),
    'text': (json.dumps({'shapes': [{**RECTANGLE, 'points': [['a', 1]]}]}), 'shape 1'),
    'no object': (json.dumps({'shapes': [RECTANGLE, 7]}), 'shape 2'),
    'broken mask': (
        json.dumps({'shapes': [{**mask_shape(slice(1), slice(1)), 'mask': 'AAAA'}]}),
        'mask that cannot be decoded',
    ),
    'empty mask': (json.dumps({'shapes': [mask_shape(slice(0), slice(0))]}), 'empty mask'),
}


@pytest.mark.parametrize('fault', MALFORMED)
def test_a_malformed_json_is_told_in_one_line_with_its_cure(folder, fault):
    text, reason = MALFORMED[fault]
    write(folder / 'part3.json', text)
    source = read_source(folder)
    with pytest.raises(UserError, match=rf'part3\.json: .*{reason}.*--fix leave out') as caught:
        refuse(source.problems)
    assert len(str(caught.value).splitlines()) == 2


def test_two_jsons_for_one_image_and_a_json_without_image(folder):
    labelme(folder / 'again.json', [RECTANGLE], 'part3.png')
    labelme(folder / 'ghost.json', [RECTANGLE])
    kinds = {p.kind: p for p in read_source(folder).problems}
    assert set(kinds) == {'second annotation', 'annotation without image'}
    assert kinds['annotation without image'].file.name == 'ghost.json'
