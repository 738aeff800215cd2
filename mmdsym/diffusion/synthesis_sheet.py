"""A contact sheet: real defects beside synthetic ones, per class and size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mmdsym.errors import UserError
from mmdsym.image_files import read_rgb
from mmdsym.visualization.sheet import CLASS_COLOURS, GREEN, Box, compose_sheet, draw_panel

from .cache_annotations import read_annotations
from .class_boxes import measure_class
from .labelled_images import LabelledImages
from .layout_config import parse_layout
from .size_distribution import BUCKETS

_CONTEXT = 2.0
_MIN_WINDOW = 64
_REGION_SIDE = 96
_SEAM = 4


@dataclass(frozen=True)
class SynthesisSheet:
    """What is on a sheet.

    Attributes:
        image: RGB.
        real: Number of real defects shown.
        synthetic: Number of synthetic ones.
    """

    image: Image.Image
    real: int
    synthetic: int


@dataclass(frozen=True)
class _Example:
    path: Path
    box: tuple[float, float, float, float]
    kind: str


def draw_synthesis_sheet(
    folder: Path, manifest: Mapping, labelled: LabelledImages, pairs: int = 1, seed: int = 0
) -> SynthesisSheet:
    """Draws a row for each class, in it small, medium and large, in each real beside synthetic.

    Args:
        folder: A finished cache.
        manifest: Its manifest.
        labelled: The labelled images that it was made from.
        pairs: Rows for each class.
        seed: Of the choice of examples.

    Raises:
        UserError: An image or the annotations of the cache are missing or damaged.
    """
    generator = np.random.default_rng(seed)
    real = _real_examples(labelled, manifest)
    synthetic = _synthetic_examples(folder)
    entries, counts = [], dict(real=0, synthetic=0)
    for label, name in enumerate(labelled.classes):
        if not any((label, size) in real or (label, size) in synthetic for size in BUCKETS):
            continue
        colour = CLASS_COLOURS[label % len(CLASS_COLOURS)]
        for pair in range(pairs):
            for size in BUCKETS:
                own, new = real.get((label, size), []), synthetic.get((label, size), [])
                entries.append(
                    [
                        _panel(own, pair, generator, f'{name}, {size}: real', GREEN),
                        _panel(new, pair, generator, 'synthetic', colour),
                    ]
                )
                counts['real'] += len(own) > pair
                counts['synthetic'] += len(new) > pair
    title = f'{len(manifest["files"]) - 1} synthetic images, {folder.name}'
    return SynthesisSheet(compose_sheet(entries, title, columns=len(BUCKETS)), **counts)


def draw_synthetic_regions(
    folder: Path, classes: Sequence[str], per_size: int = 2, seed: int = 0
) -> SynthesisSheet:
    """Draws a row for each class of painted regions alone.

    No real defect stands beside them. Copied or repainted ones can still show much of one.

    Args:
        folder: A finished cache.
        classes: Class names, in the order of the labels.
        per_size: Regions of each of small, medium and large.
        seed: Of the choice of examples.

    Raises:
        UserError: An image or the annotations of the cache are missing or damaged.
    """
    generator = np.random.default_rng(seed)
    synthetic = _synthetic_examples(folder)
    entries, shown = [], 0
    for label, name in enumerate(classes):
        row = []
        for size in BUCKETS:
            examples = synthetic.get((label, size), [])
            generator.shuffle(examples)
            captions = [f'{name}, {size}'] + [''] * (per_size - 1)
            row += [
                _region_panel(example, caption)
                for example, caption in zip(examples, captions, strict=False)
            ]
        shown += len(row)
        entries += [row] if row else []
    title = 'Painted regions, each at its own scale'
    return SynthesisSheet(compose_sheet(entries, title, columns=1), real=0, synthetic=shown)


def _region_panel(example: _Example, caption: str) -> Image.Image:
    # Whole pixels inside the box: at its edge painted and real ones are blended.
    box = [round(value) for value in example.box]
    inner = [box[0] + _SEAM, box[1] + _SEAM, box[2] - _SEAM, box[3] - _SEAM]
    if inner[0] >= inner[2] or inner[1] >= inner[3]:
        inner = box
    region = _open(example.path).crop(inner)
    region.thumbnail((_REGION_SIDE, _REGION_SIDE))
    panel = Image.new('RGB', (_REGION_SIDE, _REGION_SIDE), (40, 40, 44))
    panel.paste(region, ((_REGION_SIDE - region.width) // 2, (_REGION_SIDE - region.height) // 2))
    return draw_panel(panel, [], caption)


def _open(path: Path) -> Image.Image:
    try:
        return read_rgb(path)
    except (OSError, ValueError):
        raise UserError(
            f'the image {path} cannot be read: restore it, or run tools/synthesize.py if '
            'it belongs to a cache.'
        ) from None


def _real_examples(
    labelled: LabelledImages, manifest: Mapping
) -> dict[tuple[int, str], list[_Example]]:
    layout = parse_layout(manifest['parts']['layout'])
    examples: dict[tuple[int, str], list[_Example]] = {}
    for label in range(len(labelled.classes)):
        found = measure_class(labelled, label, layout)
        if found is None:
            continue
        for image, box, bucket in zip(found.images, found.boxes, found.buckets, strict=True):
            example = _Example(Path(labelled[image].path), tuple(box.tolist()), '')
            examples.setdefault((label, BUCKETS[bucket]), []).append(example)
    return examples


def _synthetic_examples(folder: Path) -> dict[tuple[int, str], list[_Example]]:
    examples: dict[tuple[int, str], list[_Example]] = {}
    for name, annotation in _painted(folder):
        x, y, width, height = annotation['bbox']
        example = _Example(
            folder / 'images' / name, (x, y, x + width, y + height), annotation['painted']
        )
        place = (annotation['category_id'] - 1, annotation['size'])
        examples.setdefault(place, []).append(example)
    return examples


def _painted(folder: Path) -> Iterator[tuple[str, dict]]:
    """Yields the image name and annotation of each painted box."""
    try:
        content = read_annotations(folder)
    except (OSError, ValueError):
        raise UserError(
            f'{folder / "annotations.json"} is damaged: run tools/synthesize.py, which rebuilds '
            'the cache.'
        ) from None
    names = {image['id']: image['file_name'] for image in content['images']}
    for annotation in content['annotations']:
        if annotation['painted']:
            yield names[annotation['image_id']], annotation


def _panel(
    examples: list[_Example],
    pair: int,
    generator: np.random.Generator,
    caption: str,
    colour: tuple[int, int, int],
) -> Image.Image:
    """Draws one example, of each round another one, or an empty panel where there is none."""
    if pair == 0:
        generator.shuffle(examples)
    if len(examples) <= pair:
        return draw_panel(Image.new('RGB', (_MIN_WINDOW, _MIN_WINDOW)), [], f'{caption}: none')
    example = examples[pair]
    image = _open(example.path)
    left, top, right, bottom = _window(example.box, image.size)
    x1, y1, x2, y2 = example.box
    box = Box((x1 - left, y1 - top, x2 - left, y2 - top), example.kind or 'real', colour)
    return draw_panel(image.crop((left, top, right, bottom)), [box], caption)


def _window(
    box: tuple[float, float, float, float], image_size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """A square around a box with some surface, shifted and cut to lie inside the image."""
    x1, y1, x2, y2 = box
    side = max(_MIN_WINDOW, int(_CONTEXT * max(x2 - x1, y2 - y1)))
    bounds = []
    for low, high, limit in ((x1, x2, image_size[0]), (y1, y2, image_size[1])):
        length = min(side, limit)
        begin = int(min(max(0, (low + high) / 2 - length / 2), limit - length))
        bounds.append((begin, begin + length))
    (left, right), (top, bottom) = bounds
    return left, top, right, bottom
