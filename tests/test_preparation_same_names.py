"""Images that share their names in several folders keep the labels of their own folder."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from preparation_data import BOX, WIDTH, coco_json, save_image, voc_xml, write

from mmdsym.datasets.preparation.records import Source
from mmdsym.datasets.preparation.sources.read import read_source

OTHER = (20, 2, 30, 9)


def box_of(source: Source, place: str) -> tuple | None:
    """Edges of the only box of an image, None where it has no annotation."""
    image = next(i for i in source.images if i.path == source.root / place)
    if image.annotation is None:
        return None
    (box,) = image.boxes
    return box.x1, box.y1, box.x2, box.y2


def boxes(source: Source) -> dict[str, tuple | None]:
    places = [image.path.relative_to(source.root).as_posix() for image in source.images]
    return {place: box_of(source, place) for place in places}


def two_folders(root: Path, pattern: str = 'images/{}', names: Sequence[str] = 'AB') -> Path:
    """Three images of the same names in two folders, no two alike."""
    for offset, folder in enumerate(names):
        for i in range(3):
            save_image(root / pattern.format(folder) / f'00{i}.png', seed=10 * offset + i)
    return root


def xml(path: Path, edges: tuple, filename: str = '') -> Path:
    return write(path, voc_xml([('dent', edges)], filename))


def shapes(path: Path, edges: tuple, image: str | None) -> Path:
    x1, y1, x2, y2 = edges
    shape = {'label': 'dent', 'shape_type': 'rectangle', 'points': [[x1, y1], [x2, y2]]}
    content = {'shapes': [shape], 'imageWidth': WIDTH}
    return write(path, json.dumps(content | ({'imagePath': image} if image else {})))


def annotate(kind: str, path: Path, edges: tuple) -> Path:
    if kind == 'voc':
        return xml(path.with_suffix('.xml'), edges)
    return shapes(path.with_suffix('.json'), edges, f'{path.stem}.png')


@pytest.mark.parametrize('kind', ['voc', 'labelme'])
def test_one_annotated_folder_leaves_the_other_alone(tmp_path, kind):
    root = two_folders(tmp_path)
    for i in range(3):
        annotate(kind, root / f'Annotations/B/00{i}', BOX)
    source = read_source(root)
    assert not source.problems
    assert boxes(source) == {
        f'images/{folder}/00{i}.png': BOX if folder == 'B' else None
        for folder in 'AB'
        for i in range(3)
    }


@pytest.mark.parametrize('kind', ['voc', 'labelme'])
@pytest.mark.parametrize(
    ('images', 'annotations'),
    [('images/{}', 'Annotations/{}'), ('{}/images', '{}/annotations'), ('pictures/{}', 'boxes/{}')],
)
def test_two_annotated_folders_keep_their_own_boxes(tmp_path, kind, images, annotations):
    root = two_folders(tmp_path, images, ('train', 'val'))
    for split, edges in (('train', BOX), ('val', OTHER)):
        annotate(kind, root / annotations.format(split) / '001', edges)
    source = read_source(root)
    assert not source.problems
    found = boxes(source)
    assert found[f'{images.format("train")}/001.png'] == BOX
    assert found[f'{images.format("val")}/001.png'] == OTHER
    assert sum(edges is not None for edges in found.values()) == 2


@pytest.mark.parametrize('kind', ['voc', 'labelme'])
def test_an_annotation_that_may_belong_to_two_images_is_told(tmp_path, kind):
    root = two_folders(tmp_path)
    file = annotate(kind, root / 'Annotations/001', BOX)
    source = read_source(root)
    (problem,) = source.problems
    assert problem.kind == 'annotation without image' and problem.file == file
    assert 'may be images/A/001.png or images/B/001.png' in str(problem)
    assert set(boxes(source).values()) == {None}


@pytest.mark.parametrize('kind', ['voc', 'labelme'])
def test_a_missing_image_is_not_replaced_from_another_folder(tmp_path, kind):
    root = two_folders(tmp_path)
    (root / 'images/B/001.png').unlink()
    file = annotate(kind, root / 'Annotations/B/001', BOX)
    source = read_source(root)
    (problem,) = source.problems
    assert problem.kind == 'annotation without image' and problem.file == file
    assert set(boxes(source).values()) == {None}


def test_unique_names_find_their_image_in_any_folder(tmp_path):
    for folder, numbers in (('A', range(3)), ('B', range(3, 6))):
        for i in numbers:
            save_image(tmp_path / f'images/{folder}/00{i}.png')
    xml(tmp_path / 'Annotations/B/001.xml', BOX)
    source = read_source(tmp_path)
    assert not source.problems and boxes(source)['images/A/001.png'] == BOX


@pytest.mark.parametrize(
    'stated', ['../images/B/001.png', '..\\images\\B\\001.png', 'C:\\parts\\B\\001.png']
)
def test_labelme_names_the_folder_of_its_image(tmp_path, stated):
    root = two_folders(tmp_path)
    shapes(root / 'labels' / '001.json', BOX, stated)
    source = read_source(root)
    assert not source.problems
    assert {place for place, edges in boxes(source).items() if edges} == {'images/B/001.png'}


def test_the_extension_inside_decides_between_images_of_one_stem(tmp_path):
    save_image(tmp_path / 'images/part.png')
    save_image(tmp_path / 'images/part.bmp')
    xml(tmp_path / 'Annotations/part.xml', BOX, 'part.png')
    source = read_source(tmp_path)
    assert not source.problems
    assert boxes(source) == {'images/part.bmp': None, 'images/part.png': BOX}


def coco(root: Path, names: list[str], file: str = 'all.json') -> Path:
    write(root / file, coco_json([(name, [('dent', BOX)]) for name in names], ['dent']))
    return root


def images_of(source: Source) -> set[str]:
    return {image.path.relative_to(source.root).as_posix() for image in source.images}


NAMES = [f'00{i}.png' for i in range(3)]


@pytest.mark.parametrize('prefix', ['cam1/', 'images/cam1/', 'D:\\old\\cam1\\', '/old/cam1/'])
def test_coco_does_not_replace_a_missing_image_from_another_folder(tmp_path, prefix):
    root = coco(two_folders(tmp_path, 'images/{}', ('cam1', 'cam2')), [prefix + n for n in NAMES])
    (root / 'images/cam1/001.png').unlink()
    source = read_source(root)
    (problem,) = source.problems
    assert problem.kind == 'annotation without image'
    assert f'image {prefix}001.png is missing' in str(problem)
    assert images_of(source) == {'images/cam1/000.png', 'images/cam1/002.png'}


def test_coco_does_not_take_what_another_entry_names(tmp_path):
    names = [f'{folder}/{name}' for folder in ('cam1', 'cam2') for name in NAMES]
    root = coco(two_folders(tmp_path, '{}', ('cam2', 'cam3')), names)
    source = read_source(root)
    assert images_of(source) == {f'cam2/{name}' for name in NAMES}
    assert [problem.message for problem in source.problems] == [
        f'image cam1/{name} is missing (cam2/{name} only has the same name)' for name in NAMES
    ]


def test_coco_tells_a_name_that_may_mean_two_images(tmp_path):
    root = coco(two_folders(tmp_path), ['000.png'])
    (problem,) = read_source(root).problems
    assert 'image 000.png may be images/A/000.png or images/B/000.png' in str(problem)


@pytest.mark.parametrize(
    'prefix', ['', 'data/', 'images/', '/home/u/parts/images/', 'C:\\parts\\', '../img/']
)
@pytest.mark.parametrize('place', ['', 'images', 'pictures/line1'])
def test_coco_finds_images_below_folders_that_the_layout_lacks(tmp_path, prefix, place):
    for name in NAMES:
        save_image(tmp_path / 'source' / place / name)
    root = coco(tmp_path / 'source', [prefix + name for name in NAMES], 'annotations/all.json')
    source = read_source(root)
    assert not source.problems and len(source.images) == 3


@pytest.mark.parametrize('prefix', ['', 'data/', '/home/u/images/'])
def test_coco_prefers_the_folder_of_its_own_split(tmp_path, prefix):
    root = two_folders(tmp_path, '{}', ('train', 'val'))
    for split in ('train', 'val'):
        coco(root, [prefix + name for name in NAMES], f'annotations/{split}.json')
    source = read_source(root)
    assert not source.problems and len(source.images) == 6
    assert all(image.path.parent.name == image.split for image in source.images)


def test_coco_prefers_the_upper_of_nested_folders(tmp_path):
    for folder in ('images', 'images/thumbnails'):
        save_image(tmp_path / folder / '000.png')
    source = read_source(coco(tmp_path, ['000.png']))
    assert not source.problems and images_of(source) == {'images/000.png'}


@pytest.mark.parametrize('stated', ['C:', '/', '..', 'a\0/../000.png', 'C:x/000.png', 'x/' * 3000])
def test_names_that_are_no_paths_do_no_harm(tmp_path, stated):
    root = two_folders(tmp_path / 'json', '{}')
    shapes(root / 'A/000.json', BOX, stated)
    found = boxes(read_source(root))
    assert {place for place, edges in found.items() if edges} == {'A/000.png'}
    root = coco(two_folders(tmp_path / 'coco', '{}'), [stated, 'A/001.png'])
    assert 'A/001.png' in images_of(read_source(root))
