"""Tiles cover their image, boxes survive the way there and back, no image is in two splits."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from preparation_data import coco_json

from mmdsym.datasets.preparation.assignment import assign_splits
from mmdsym.datasets.preparation.known_good import add_known_good
from mmdsym.datasets.preparation.merging.command import merge
from mmdsym.datasets.preparation.merging.prepared import read_prepared
from mmdsym.datasets.preparation.prepare import Choices, prepare
from mmdsym.datasets.preparation.records import Box, SourceImage
from mmdsym.datasets.preparation.sources.read import read_source
from mmdsym.datasets.preparation.tiles import TileChoice, image_of, tile_name, tiles_of
from mmdsym.datasets.preparation.unlabelled import add_unlabelled
from mmdsym.errors import UserError
from mmdsym.tiling import Tiling, Window, cut_box, to_image, visible_share

SIDES = st.integers(1, 400)
TILINGS = st.builds(Tiling, st.integers(32, 300), st.floats(0, 0.7))


@st.composite
def images_with_boxes(draw):
    """A record of an image that has up to four boxes of at least a pixel."""
    width, height = draw(st.integers(8, 500)), draw(st.integers(8, 500))
    boxes = []
    for _ in range(draw(st.integers(0, 4))):
        x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        x2, y2 = draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))
        boxes.append(Box(x1, y1, x2, y2, 'dent', draw(st.booleans())))
    return SourceImage(Path('a/part.jpg'), 'a/part.jpg', boxes, width=width, height=height)


CHOICES = st.builds(
    TileChoice,
    st.builds(Tiling, st.integers(32, 200), st.floats(0, 0.6)),
    st.floats(0.05, 1),
    st.floats(0, 1),
)


@given(TILINGS, SIDES, SIDES)
def test_tiles_cover_the_image_and_lie_inside(tiling, width, height):
    seen = np.zeros((height, width), dtype=bool)
    for x1, y1, x2, y2 in tiling.windows(width, height):
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        assert x2 - x1 == min(tiling.size, width)
        assert y2 - y1 == min(tiling.size, height)
        seen[y1:y2, x1:x2] = True
    assert seen.all()


@given(TILINGS, SIDES, SIDES, st.data())
def test_a_box_no_longer_than_the_shared_strip_is_whole_in_some_tile(tiling, width, height, data):
    longest = max(tiling.shared_pixels, 1)
    x1, y1 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = x1, y1, min(x1 + longest, width), min(y1 + longest, height)
    shares = [visible_share(box, window) for window in tiling.windows(width, height)]
    assert max(shares) == 1


@given(images_with_boxes(), CHOICES)
def test_boxes_stay_inside_their_tile_and_counting_ones_show_enough(image, choice):
    for tile in tiles_of(image, choice).both:
        window = Window(
            tile.tile.x, tile.tile.y, tile.tile.x + tile.width, tile.tile.y + tile.height
        )
        originals = [b for b in image.boxes if visible_share((b.x1, b.y1, b.x2, b.y2), window) > 0]
        assert len(tile.boxes) == len(originals)
        for box, original in zip(tile.boxes, originals, strict=True):
            assert 0 <= box.x1 < box.x2 <= tile.width
            assert 0 <= box.y1 < box.y2 <= tile.height
            enough = box.area / original.area >= choice.visible_share - 1e-9
            assert box.ignore == (original.ignore or not enough)


@given(images_with_boxes(), CHOICES)
def test_boxes_come_back_to_where_they_were(image, choice):
    for tile in tiles_of(image, choice).both:
        for box in tile.boxes:
            back = to_image((box.x1, box.y1, box.x2, box.y2), tile.tile.x, tile.tile.y)
            around = [
                o
                for o in image.boxes
                if o.x1 <= back[0] and o.y1 <= back[1] and back[2] <= o.x2 and back[3] <= o.y2
            ]
            assert around
            if (
                box.width < tile.width
                and box.height < tile.height
                and not (
                    box.x1 == 0 or box.y1 == 0 or box.x2 == tile.width or box.y2 == tile.height
                )
            ):
                assert back in [(o.x1, o.y1, o.x2, o.y2) for o in image.boxes]


@given(images_with_boxes(), CHOICES)
def test_every_tile_with_a_counting_box_is_kept_and_of_the_rest_the_share(image, choice):
    kept = tiles_of(image, choice)
    all_tiles = tiles_of(image, TileChoice(choice.tiling, choice.visible_share, 1.0)).unlabelled
    assert len(all_tiles) == len(choice.tiling.windows(image.width, image.height))
    showing = {t.name for t in all_tiles if any(not b.ignore for b in t.boxes)}
    bare = {t.name for t in all_tiles if not t.boxes}
    names = {t.name for t in kept.labelled}
    assert showing <= names <= showing | bare
    assert len(names & bare) == np.ceil(choice.empty_share * len(bare))
    assert len(kept.unlabelled) == np.ceil(choice.empty_share * len(all_tiles))


@given(images_with_boxes(), CHOICES)
def test_which_tiles_are_unlabelled_does_not_depend_on_labels(image, choice):
    without = SourceImage(image.path, image.name, width=image.width, height=image.height)
    one, other = tiles_of(image, choice).unlabelled, tiles_of(without, choice).unlabelled
    assert [tile.name for tile in one] == [tile.name for tile in other]


def test_the_share_of_a_box_is_that_of_its_area():
    assert visible_share((0, 0, 10, 10), Window(5, 0, 50, 50)) == 0.5
    assert visible_share((0, 0, 10, 10), Window(5, 5, 50, 50)) == 0.25
    assert visible_share((0, 0, 10, 10), Window(10, 0, 50, 50)) == 0
    assert cut_box((0, 0, 10, 10), Window(5, 4, 50, 50)) == (0, 0, 5, 6)


def test_a_tile_says_which_image_and_where():
    name = tile_name('line/part.jpg', Window(512, 64, 1024, 576))
    assert name == 'line/part__x00512_y00064.png'
    assert image_of(name) == image_of('line/part__x00000_y00000.png') == 'line/part'
    assert image_of('line/part__x1_y2.png') == 'line/part__x1_y2.png'


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: Tiling(8), 'at least 32'),
        (lambda: Tiling(64, 1.0), r'outside \[0, 0.9\]'),
        (lambda: TileChoice(Tiling(64), visible_share=0), r'--visible-share 0 is outside'),
        (lambda: TileChoice(Tiling(64), empty_share=1.5), r'--empty-tiles 1.5 is outside'),
    ],
)
def test_numbers_out_of_range_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_without_sahi_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'sahi', None)
    with pytest.raises(UserError, match=r"pip install 'mmdsym\[tiles\]'"):
        Tiling(64).windows(100, 100)


@pytest.fixture
def wide_parts(tmp_path):
    """Twelve images of 150x100 with one box each, of which the last two validate."""
    root = tmp_path / 'wide'
    images = []
    for index in range(12):
        split = 'valid' if index >= 10 else 'train'
        pixels = np.random.default_rng(index).integers(0, 256, (100, 150), dtype=np.uint8)
        (root / split).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / split / f'part{index}.png')
        x, y = 7 * index, 5 * index
        images.append((f'part{index}.png', [(('dent', 'crack')[index % 2], (x, y, x + 9, y + 8))]))
    for split, chosen in (('train', images[:10]), ('valid', images[10:])):
        text = coco_json(chosen, ['dent', 'crack'])
        (root / split / '_annotations.coco.json').write_text(text)
    return root


def prepare_tiles(root, out, good=None, extra=None, **choice):
    source = read_source(root, 'auto', None)
    assign_splits(source, ['default'], 0.2)
    if extra:
        add_unlabelled(source, extra)
    if good:
        add_known_good(source, good)
    settings = dict(visible_share=0.5, empty_share=0.4) | choice
    tiles = TileChoice(Tiling(64, 0.25), **settings)
    prepare(source, 'tiles', out, Choices([0.5, 1.0], [0], 0.3), tiles=tiles)
    return out / 'tiles'


def load(path):
    return json.loads(path.read_text())


def test_all_tiles_of_an_image_stay_in_one_part(wide_parts, tmp_path):
    root = prepare_tiles(wide_parts, tmp_path)
    parts = {'train': 'train.json', 'val': 'val.json'}
    parts |= {part: f'50pct_seed0/{part}.json' for part in ('burn_in', 'calibration', 'unlabelled')}
    images_of = defaultdict(set)
    for part, name in parts.items():
        for entry in load(root / 'annotations' / name)['images']:
            images_of[part].add(entry['tile']['image'])
    assert all(images_of.values())
    assert not images_of['train'] & images_of['val']
    apart = [images_of[part] for part in ('burn_in', 'calibration', 'unlabelled')]
    assert sum(map(len, apart)) == len(set().union(*apart)) == 10


def test_tiles_have_the_pixels_and_boxes_of_their_place(wide_parts, tmp_path):
    root = prepare_tiles(wide_parts, tmp_path)
    for split, folder in (('train', 'train'), ('val', 'valid')):
        content = load(root / 'annotations' / f'{split}.json')
        truth = load(wide_parts / folder / '_annotations.coco.json')
        boxes = {image['file_name']: [] for image in truth['images']}
        for row in truth['annotations']:
            boxes[truth['images'][row['image_id']]['file_name']].append(row['bbox'])
        counting = set()
        for entry in content['images']:
            x, y = entry['tile']['x'], entry['tile']['y']
            window = (x, y, x + entry['width'], y + entry['height'])
            whole = Image.open(wide_parts / folder / entry['tile']['image'])
            tile = Image.open(root / 'images' / entry['file_name'])
            assert np.array_equal(np.array(tile), np.array(whole.crop(window)))
            for row in content['annotations']:
                if row['image_id'] == entry['id'] and not row['iscrowd']:
                    left, top, width, height = row['bbox']
                    back = [left + x, top + y, width, height]
                    counting.add((entry['tile']['image'], *back))
        for name, found in boxes.items():
            assert {(name, *map(int, box)) for box in found} <= counting


def test_validation_images_stay_whole_beside_their_tiles(wide_parts, tmp_path):
    root = prepare_tiles(wide_parts, tmp_path)
    content = load(root / 'annotations' / 'val_whole.json')
    assert [entry['file_name'] for entry in content['images']] == [
        'whole/part10.png',
        'whole/part11.png',
    ]
    assert [row['bbox'] for row in content['annotations']] == [[70, 50, 9, 8], [77, 55, 9, 8]]
    assert content['info']['tiling'] == {'size': 64, 'overlap': 0.25}
    for entry in content['images']:
        original = wide_parts / 'valid' / Path(entry['file_name']).name
        assert (root / 'images' / entry['file_name']).read_bytes() == original.read_bytes()
    assert not (root / 'annotations' / 'train_whole.json').exists()


def test_known_good_and_extra_images_are_cut_too(wide_parts, tmp_path):
    for kind in ('good', 'extra'):
        (tmp_path / kind).mkdir()
        for index in range(2):
            pixels = np.random.default_rng([index, len(kind)]).integers(0, 256, (100, 150, 3))
            image = Image.fromarray(pixels.astype(np.uint8))
            image.save(tmp_path / kind / f'{kind}{index}.jpg')
    root = prepare_tiles(wide_parts, tmp_path / 'out', tmp_path / 'good', tmp_path / 'extra')
    annotations = root / 'annotations' / '50pct_seed0'
    good = load(annotations / 'known_good.json')['images']
    # Two images of six tiles each, of which two fifths, rounded up, are kept.
    assert len(good) == 6
    assert all(entry['known_good'] for entry in good)
    assert {entry['tile']['image'] for entry in good} == {
        'known_good/good0.jpg',
        'known_good/good1.jpg',
    }
    extra = [
        entry['file_name']
        for entry in load(annotations / 'unlabelled.json')['images']
        if entry['file_name'].startswith('unlabelled/')
    ]
    assert len(extra) == 6
    for name in extra:
        assert Image.open(root / 'images' / name).size == (64, 64)


def test_no_label_is_in_the_unlabelled_list(wide_parts, tmp_path):
    root = prepare_tiles(wide_parts, tmp_path)
    unlabelled = load(root / 'annotations' / '50pct_seed0' / 'unlabelled.json')
    assert unlabelled['images']
    assert unlabelled['annotations'] == []


def test_the_card_says_which_boxes_suffer(wide_parts, tmp_path):
    card = (prepare_tiles(wide_parts, tmp_path, visible_share=1.0) / 'dataset_card.md').read_text()
    assert 'neighbours share 16 px: 12 labelled images gave' in card
    assert 'longer than' not in card


def test_a_prepared_set_of_tiles_reads_back_whole(wide_parts, tmp_path):
    root = prepare_tiles(wide_parts, tmp_path)
    source = read_prepared(root).source
    assert source.tiling == Tiling(64, 0.25)
    assert [image.name for image in source.whole] == ['part10.png', 'part11.png']
    entry = load(root / 'annotations' / 'train.json')['images'][0]
    tile = next(image for image in source.images if image.name == entry['file_name'])
    assert vars(tile.tile) == entry['tile']


def test_labels_that_come_back_keep_tiles_and_whole_images(wide_parts, tmp_path):
    root = prepare_tiles(wide_parts, tmp_path)
    entry = load(root / 'annotations' / 'train.json')['images'][0]
    export = tmp_path / 'corrected.json'
    export.write_text(
        json.dumps(
            {
                'images': [entry],
                'annotations': [
                    {'id': 1, 'image_id': entry['id'], 'category_id': 1, 'bbox': [1, 2, 9, 9]}
                ],
                'categories': [{'id': 1, 'name': 'dent'}, {'id': 2, 'name': 'crack'}],
            }
        )
    )
    merge(export, root, tmp_path / 'merged', 'new', 'corrected', None, 0.15, False, False)
    for name in ('val_whole.json', 'val.json'):
        before, after = (load(r / 'annotations' / name) for r in (root, tmp_path / 'merged'))
        names = [[image['file_name'] for image in content['images']] for content in (before, after)]
        assert names[0] == names[1]
        assert before['info'] == after['info']
    after = load(tmp_path / 'merged' / 'annotations' / 'train.json')
    merged = next(i for i in after['images'] if i['file_name'] == entry['file_name'])
    assert merged['tile'] == entry['tile']
    assert [a['bbox'] for a in after['annotations'] if a['image_id'] == merged['id']] == [
        [1, 2, 9, 9]
    ]
    assert (tmp_path / 'merged' / 'images' / 'whole' / 'part10.png').is_file()


def test_two_images_whose_tiles_would_have_one_name_are_refused(wide_parts, tmp_path):
    train = wide_parts / 'train'
    Image.open(train / 'part0.png').rotate(180).save(train / 'part0.jpg')
    content = load(train / '_annotations.coco.json')
    content['images'].append({'id': 99, 'file_name': 'part0.jpg', 'width': 150, 'height': 100})
    (train / '_annotations.coco.json').write_text(json.dumps(content))
    with pytest.raises(UserError, match='part0.jpg and part0.png would give tiles of the same'):
        prepare_tiles(wide_parts, tmp_path)
