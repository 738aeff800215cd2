"""Which of several COCO jsons are used, and what the user hears of the others."""

import codecs
from pathlib import Path

import pytest
from preparation_data import coco_images, coco_json, make_coco_annotations, write

from mmdsym.datasets.preparation.sources.read import read_source
from mmdsym.errors import UserError

CLASSES = ['dent', 'crack']


@pytest.fixture
def source(tmp_path):
    """Images 0 to 15 train, 16 to 19 validate."""
    return make_coco_annotations(tmp_path / 'source')


def add(source: Path, numbers: range, file: str = 'annotations/all.json') -> Path:
    return write(source / file, coco_json(coco_images(numbers), CLASSES))


def test_a_json_without_split_that_adds_nothing_is_named_in_a_note(source):
    add(source, range(20))
    read = read_source(source)
    assert len(read.images) == 20
    (note,) = read.notes
    assert 'annotations/all.json says no split' in note and 'was not used' in note


@pytest.mark.parametrize('missing', ['train', 'val'])
def test_a_json_without_split_whose_boxes_would_be_lost_is_refused(source, missing):
    (source / f'annotations/instances_{missing}2017.json').unlink()
    add(source, range(20))
    with pytest.raises(UserError, match=r'all\.json says no split .*; put train, val or'):
        read_source(source)


def test_a_json_without_split_and_without_boxes_is_left_out_in_silence(source):
    write(source / 'info.json', coco_json([('part0.png', [])], CLASSES))
    assert not read_source(source).notes


def test_a_mark_before_a_json_does_no_harm(source):
    for path in (source / 'annotations').iterdir():
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert sum(len(image.boxes) for image in read_source(source).images) == 20
