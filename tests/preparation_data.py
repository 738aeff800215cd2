"""Tiny data sets in every layout, for the tests of data preparation."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from mmdsym.datasets.preparation.boxes import edges_to_coco, edges_to_voc, edges_to_yolo

WIDTH, HEIGHT = 40, 30
BOX = (4, 5, 14, 25)
NEU_CLASSES = [
    'crazing',
    'inclusion',
    'patches',
    'pitted_surface',
    'rolled-in_scale',
    'scratches',
]

Boxes = list[tuple[str, tuple[float, float, float, float]]]


def save_image(path: Path, seed: int | None = None) -> Path:
    """Writes a random image; a file name always gets the same pixels, another name others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.name.encode()) if seed is None else seed)
    pixels = rng.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def voc_xml(boxes: Boxes, filename: str = '', size: tuple[int, int] = (WIDTH, HEIGHT)) -> str:
    objects = ''
    for label, edges in boxes:
        tags = zip(('xmin', 'ymin', 'xmax', 'ymax'), edges_to_voc(edges), strict=True)
        corners = ''.join(f'<{tag}>{value!r}</{tag}>' for tag, value in tags)
        objects += f'<object><name>{label}</name><bndbox>{corners}</bndbox></object>'
    width, height = size
    return (
        f'<annotation><filename>{filename}</filename><size><width>{width}</width>'
        f'<height>{height}</height><depth>1</depth></size>{objects}</annotation>'
    )


def yolo_txt(boxes: list[tuple[int, tuple]]) -> str:
    lines = [(n, *edges_to_yolo(edges, WIDTH, HEIGHT)) for n, edges in boxes]
    return ''.join(' '.join(map(str, line)) + '\n' for line in lines)


def coco_json(images: list[tuple[str, Boxes]], classes: list[str]) -> str:
    annotations = [
        {
            'id': 100 * i + j,
            'image_id': i,
            'category_id': classes.index(label) + 5,
            'bbox': edges_to_coco(edges),
        }
        for i, (_, boxes) in enumerate(images)
        for j, (label, edges) in enumerate(boxes)
    ]
    return json.dumps(
        {
            'images': [
                {'id': i, 'file_name': name, 'width': WIDTH, 'height': HEIGHT}
                for i, (name, _) in enumerate(images)
            ],
            'annotations': annotations,
            'categories': [{'id': i + 5, 'name': label} for i, label in enumerate(classes)],
        }
    )


def neu_stems() -> list[str]:
    numbers = [1, 2, 3, 4, 239, 240, 241, 242]
    return [f'{label}_{number}' for label in NEU_CLASSES for number in numbers]


def make_neu(root: Path) -> Path:
    for stem in neu_stems():
        save_image(root / 'IMAGES' / f'{stem}.jpg')
        label = stem.rsplit('_', 1)[0]
        write(root / 'ANNOTATIONS' / f'{stem}.xml', voc_xml([(label, BOX)], f'{stem}.jpg'))
    return root


def make_neu_split(root: Path) -> Path:
    for stem in neu_stems():
        label, number = stem.rsplit('_', 1)
        half = 'train' if int(number) <= 240 else 'validation'
        save_image(root / half / 'images' / label / f'{stem}.jpg')
        # Copies of this layout have a few annotations in the other half.
        where = 'validation' if number == '240' else half
        write(root / where / 'annotations' / f'{stem}.xml', voc_xml([(label, BOX)], stem))
    return root


def make_neu_yolo(root: Path) -> Path:
    for stem in neu_stems():
        label = stem.rsplit('_', 1)[0]
        save_image(root / 'images' / f'{stem}.jpg')
        write(root / 'labels' / f'{stem}.txt', yolo_txt([(NEU_CLASSES[::-1].index(label), BOX)]))
    write(root / 'classes.txt', '\n'.join(NEU_CLASSES[::-1]))
    return root


def make_yolo(root: Path, images_first: bool = True) -> Path:
    """Sixteen images of two classes, split into folders that lie above or below images/."""
    for i in range(16):
        split = 'train' if i < 12 else 'val'
        folder = f'{{}}/{split}' if images_first else f'{split}/{{}}'
        save_image(root / folder.format('images') / f'part{i}.png')
        write(root / folder.format('labels') / f'part{i}.txt', yolo_txt([(i % 2, BOX)]))
    write(root / 'data.yaml', 'nc: 2\nnames: {0: dent, 1: crack}\n')
    return root


def make_voc(root: Path) -> Path:
    for i in range(20):
        save_image(root / 'JPEGImages' / f'part{i}.jpg')
        label = ('dent', 'crack')[i % 2]
        write(root / 'Annotations' / f'part{i}.xml', voc_xml([(label, BOX)]))
    return root


def make_voc_beside(root: Path) -> Path:
    for i in range(20):
        split = ('train', 'valid', 'test', 'train')[i % 4]
        save_image(root / split / f'part{i}.jpg')
        write(root / split / f'part{i}.xml', voc_xml([(('dent', 'crack')[i // 4 % 2], BOX)]))
    return root


def coco_images(numbers: range) -> list[tuple[str, Boxes]]:
    return [(f'part{i}.png', [(('dent', 'crack')[i % 2], BOX)]) for i in numbers]


def make_coco_one(root: Path) -> Path:
    for i in range(20):
        save_image(root / 'images' / f'part{i}.png')
    write(root / 'all.json', coco_json(coco_images(range(20)), ['dent', 'crack']))
    return root


def make_coco_annotations(root: Path) -> Path:
    for i in range(20):
        save_image(root / ('train2017' if i < 16 else 'val2017') / f'part{i}.png')
    for split, numbers in (('train', range(16)), ('val', range(16, 20))):
        text = coco_json(coco_images(numbers), ['dent', 'crack'])
        write(root / 'annotations' / f'instances_{split}2017.json', text)
    return root


def make_coco_roboflow(root: Path) -> Path:
    for split, numbers in (('train', range(16)), ('valid', range(16, 20))):
        for i in numbers:
            save_image(root / split / f'part{i}.png')
        content = json.loads(coco_json(coco_images(numbers), ['dent', 'crack']))
        for category in content['categories']:
            category['supercategory'] = 'faults'
        content['categories'].insert(0, {'id': 0, 'name': 'faults', 'supercategory': 'none'})
        write(root / split / '_annotations.coco.json', json.dumps(content))
    return root


MAKERS: dict[str, tuple[Callable[[Path], Path], str]] = {
    'neu': (make_neu, 'neu'),
    'neu-split': (make_neu_split, 'neu-split'),
    'neu-yolo': (make_neu_yolo, 'yolo'),
    'yolo images/train': (make_yolo, 'yolo'),
    'yolo train/images': (lambda root: make_yolo(root, images_first=False), 'yolo'),
    'voc': (make_voc, 'voc'),
    'voc beside': (make_voc_beside, 'voc'),
    'coco one json': (make_coco_one, 'coco'),
    'coco annotations/': (make_coco_annotations, 'coco'),
    'coco roboflow': (make_coco_roboflow, 'coco'),
}
"""Name of each layout to what makes one and the name under which it is recognised."""
