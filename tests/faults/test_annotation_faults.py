"""Annotation files that lie: each is named or mended, and none reaches beyond its folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from preparation_data import make_coco_annotations, save_image
from test_preparation_refusals import call, main  # noqa: F401  (fixtures)

TRAIN = 'annotations/instances_train2017.json'


@pytest.fixture
def change(tmp_path):
    """Makes a COCO source and returns a function that lets another one edit its training json."""
    path = make_coco_annotations(tmp_path / 'source') / TRAIN

    def edit(how) -> Path:
        content = json.loads(path.read_text())
        how(content)
        path.write_text(json.dumps(content))
        return path

    return edit


def written(tmp_path: Path, name: str = 'train') -> dict:
    """A json of the prepared data; one with NaN or Infinity is none."""

    def refuse(constant: str) -> None:
        raise AssertionError(f'{constant} was written')

    text = (tmp_path / f'out/x/annotations/{name}.json').read_text()
    return json.loads(text, parse_constant=refuse)


def boxes_of(document: dict, file_name: str) -> int:
    (number,) = (i['id'] for i in document['images'] if i['file_name'] == file_name)
    return sum(a['image_id'] == number for a in document['annotations'])


@pytest.mark.parametrize(
    'content', [b'no json', b'{"images": [', b'\xff\xfe\x00', b'', b'[' * 100000]
)
def test_a_file_that_is_no_json_is_named(call, tmp_path, content):  # noqa: F811
    source = make_coco_annotations(tmp_path / 'source')
    (source / TRAIN).write_bytes(content)
    status, _, error = call()
    assert status == 2
    assert f'{TRAIN} is not readable as JSON' in error and 'mend or remove it' in error
    assert not list(tmp_path.glob('out/*'))


def test_one_id_for_two_images_is_refused(call, change):  # noqa: F811
    path = change(lambda content: content['images'][1].update(id=0))
    status, _, error = call('--fix')
    assert status == 2
    assert f"{path} gives image id 0 to both 'part0.png' and 'part1.png'" in error


def test_ids_that_are_no_numbers_are_named(call, change):  # noqa: F811
    change(lambda content: content['annotations'][3].update(image_id=[3], category_id={}))
    status, _, error = call()
    assert status == 2
    assert 'belongs to image id [3], which is not listed' in error


def test_an_image_that_is_listed_twice_keeps_its_boxes(call, change, tmp_path):  # noqa: F811
    change(lambda content: content['images'].append(dict(content['images'][0])))
    status, _, error = call()
    assert status == 2 and 'image part0.png is listed twice' in error
    assert call('--fix')[0] == 0
    assert boxes_of(written(tmp_path), 'part0.png') == 1


def test_annotations_of_one_id_stay_two(call, change, tmp_path):  # noqa: F811
    change(lambda content: content['annotations'][1].update(id=content['annotations'][0]['id']))
    assert call()[0] == 0
    document = written(tmp_path)
    numbers = [annotation['id'] for annotation in document['annotations']]
    assert len(set(numbers)) == len(numbers) == 16


@pytest.mark.parametrize(
    'bbox',
    [
        [4, 5, -10, 20],
        [4, 5, 10, -20],
        [4, 5, 0, 20],
        [float('nan'), 5, 10, 20],
        [4, 5, float('nan'), 20],
        [4, 5, float('inf'), 20],
        [float('-inf'), 5, 10, 20],
    ],
    ids=str,
)
def test_a_box_without_area_is_named_and_left_out(call, change, tmp_path, bbox):  # noqa: F811
    change(
        lambda content: content['annotations'].append({**content['annotations'][0], 'bbox': bbox})
    )
    status, _, error = call()
    assert status == 2
    assert '1 x box of zero size' in error and 'part0.png' in error
    assert call('--fix')[0] == 0
    assert boxes_of(written(tmp_path), 'part0.png') == 1


@pytest.mark.parametrize('kind', ['relative', 'absolute', 'windows'])
def test_no_name_leads_out_of_the_source(call, change, tmp_path, kind):  # noqa: F811
    secret = save_image(tmp_path / 'secret.png')
    name = {'relative': '../../secret.png', 'absolute': str(secret), 'windows': '..\\secret.png'}[
        kind
    ]
    entry = {'id': 90, 'file_name': name, 'width': 40, 'height': 30}
    change(lambda content: content['images'].append(entry))
    status, _, error = call()
    assert status == 2
    assert f'image {name} is missing' in error
    assert call('--fix')[0] == 0
    assert len(written(tmp_path)['images']) == 16
    assert not list((tmp_path / 'out').rglob('*secret*'))
