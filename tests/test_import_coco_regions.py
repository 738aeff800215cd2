"""COCO masks and polygons without boxes, and what Roboflow's exports bring along."""

import json
from pathlib import Path

import numpy as np
import pytest
from preparation_data import HEIGHT, WIDTH, coco_images, coco_json, make_coco_one, save_image, write
from pycocotools import mask as coco_mask

from mmdsym.datasets.preparation.sources.read import read_source
from mmdsym.datasets.preparation.sources.regions import edges_of_segmentation
from mmdsym.errors import UserError


def drawn() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[7:12, 3:9] = 1
    mask[20, 15] = 1
    return mask


EDGES = (3, 7, 16, 21)


def uncompressed(mask: np.ndarray) -> dict:
    flat = mask.flatten(order='F')
    borders = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *borders, len(flat)]).tolist()
    return {'size': list(mask.shape), 'counts': counts if not flat[0] else [0, *counts]}


def compressed(mask: np.ndarray) -> dict:
    encoded = coco_mask.encode(np.asfortranarray(mask))
    return {'size': list(mask.shape), 'counts': encoded['counts'].decode()}


@pytest.mark.parametrize('encode', [compressed, uncompressed])
def test_a_mask_gives_the_edges_of_its_pixels(encode):
    assert edges_of_segmentation(encode(drawn())) == EDGES


def test_polygons_give_the_edges_around_all_of_them():
    assert edges_of_segmentation([[3, 7, 9, 7, 9, 12], [15, 20, 16, 21, 15, 21]]) == EDGES


@pytest.mark.parametrize('bbox', [None, [], [0, 0, 0, 0]])
@pytest.mark.parametrize('segmentation', [compressed(drawn()), [[3, 7, 16, 7, 16, 21]]])
def test_annotations_without_a_box_get_one(tmp_path, bbox, segmentation):
    source = make_coco_one(tmp_path / 'source')
    content = json.loads((source / 'all.json').read_text())
    content['annotations'][3].update(bbox=bbox, segmentation=segmentation)
    write(source / 'all.json', json.dumps(content))
    read = read_source(source)
    assert not read.problems
    box = next(i for i in read.images if i.name == 'part3.png').boxes[0]
    assert (box.x1, box.y1, box.x2, box.y2) == EDGES


@pytest.mark.parametrize(
    'segmentation',
    [
        None,
        [],
        [[1, 2, 3]],
        [['a', 'b']],
        [5],
        {'size': [HEIGHT, WIDTH]},
        {'size': [HEIGHT], 'counts': [1]},
        {'size': [HEIGHT, WIDTH], 'counts': [5, 7]},
        {'size': [0, 0], 'counts': []},
        {'size': [2, 2], 'counts': 'PPPPPPPPPP000000o5'},
        compressed(np.zeros((4, 4), dtype=np.uint8)),
    ],
)
def test_a_malformed_segmentation_is_told_with_its_image(tmp_path, segmentation):
    source = make_coco_one(tmp_path / 'source')
    content = json.loads((source / 'all.json').read_text())
    content['annotations'][3].pop('bbox')
    content['annotations'][3]['segmentation'] = segmentation
    write(source / 'all.json', json.dumps(content))
    (problem,) = read_source(source).problems
    assert problem.kind == 'unreadable annotation' and problem.image == 'part3.png'
    assert 'all.json' in str(problem) and '--fix leave out' in str(problem)


def roboflow(root: Path, categories: list[dict], renumber: dict[int, int]) -> Path:
    """train/, valid/ and test/ as Roboflow exports them, with the given category ids."""
    for split, numbers in (('train', range(12)), ('valid', range(12, 16)), ('test', range(16, 20))):
        for i in numbers:
            save_image(root / split / f'part{i}.png')
        content = json.loads(coco_json(coco_images(numbers), ['dent', 'crack']))
        for annotation in content['annotations']:
            annotation['category_id'] = renumber[annotation['category_id']]
        content['categories'] = categories
        write(root / split / '_annotations.coco.json', json.dumps(content))
    return root


def category(number: int, name: str, parent: str = 'none') -> dict:
    return {'id': number, 'name': name, 'supercategory': parent}


@pytest.mark.parametrize('parent', ['faults', 'none'])
def test_the_phantom_root_of_roboflow_is_dropped_and_told(tmp_path, parent):
    categories = [category(0, 'faults'), category(1, 'dent', parent), category(2, 'crack', parent)]
    source = read_source(roboflow(tmp_path / 'source', categories, {5: 1, 6: 2}))
    assert source.classes == ['dent', 'crack'] and not source.problems
    assert any(note.startswith('faults heads other categories') for note in source.notes)
    assert {split: len(source.in_split(split)) for split in ('train', 'val', 'test')} == {
        'train': 12,
        'val': 4,
        'test': 4,
    }


def test_a_root_with_boxes_stays_a_class(tmp_path):
    categories = [category(0, 'dent'), category(1, 'crack', 'dent')]
    source = read_source(roboflow(tmp_path / 'source', categories, {5: 0, 6: 1}))
    assert source.classes == ['dent', 'crack']
    assert not any('heads other' in note for note in source.notes)


def test_sparse_and_unordered_ids_name_the_same_classes(tmp_path):
    categories = [category(90, 'crack'), category(0, 'faults'), category(7, 'dent')]
    source = read_source(roboflow(tmp_path / 'source', categories, {5: 7, 6: 90}))
    assert source.classes == ['dent', 'crack']
    labels = {image.name: box.label for image in source.images for box in image.boxes}
    assert labels['part0.png'] == 'dent' and labels['part1.png'] == 'crack'


def test_one_id_for_two_classes_is_refused(tmp_path):
    categories = [category(1, 'dent'), category(1, 'crack')]
    with pytest.raises(UserError, match=r"coco\.json gives category id 1 to both 'dent' and"):
        read_source(roboflow(tmp_path / 'source', categories, {5: 1, 6: 1}))
