"""The data card: what a prepared data set holds, as numbers and as a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from mmdsym.datasets.preparation.inspection import repeated_images
from mmdsym.datasets.preparation.records import PROBLEM_KINDS, Problem, Source, SourceImage

SMALL, LARGE = 32**2, 96**2
"""COCO's borders between small, medium and large boxes, in square pixels."""

PARTS = {
    'labelled': 'labelled',
    'burn_in': 'burn-in',
    'calibration': 'calibration',
    'unlabelled': 'unlabelled',
    'known_good': 'known good',
}
"""Lists of a choice, in the order in which they are shown, and how each is called."""

QUANTILES = (0, 5, 25, 50, 75, 95, 100)


def make_card(
    name: str,
    source: Source,
    problems: Sequence[Problem],
    mended: Sequence[str],
    subsets: Mapping[str, Mapping[str, Sequence[SourceImage]]],
) -> dict:
    """Counts what a data set holds.

    Args:
        name: Name of the data set.
        source: The source after mending.
        problems: What was wrong with it before.
        mended: What was done about that.
        subsets: Folder of each fraction and seed, to its labelled, burn-in, calibration and
            unlabelled images.

    Returns:
        A dict that JSON can hold.
    """
    splits = [split for split in ('train', 'val', 'test') if source.in_split(split)]
    found = Counter(problem.kind for problem in problems)
    return {
        'name': name,
        'layout': source.layout,
        'classes': source.classes,
        'splits': {split: _count(source.in_split(split), source.classes) for split in splits},
        'extra_unlabelled_images': len(source.unlabelled),
        'image_sizes': _image_sizes(source),
        'box_sizes': _box_sizes(source.images),
        'problems_found': {kind: found[kind] for kind in PROBLEM_KINDS},
        'images_without_annotation': source.images_without_annotation,
        'mended': list(mended),
        'repeated_images_within_a_split': repeated_images(source),
        'subsets': {
            folder: {
                **{part: len(images) for part, images in parts.items()},
                'labelled_images_per_class': _images_per_class(parts['labelled'], source.classes),
            }
            for folder, parts in subsets.items()
        },
        'notes': source.notes,
    }


def render_card(card: Mapping) -> str:
    """The card as a Markdown page."""
    parts = [
        f'# Data card: {card["name"]}',
        f'Read as layout `{card["layout"]}`; {len(card["classes"])} classes; '
        f'{card["extra_unlabelled_images"]} extra unlabelled images.',
        '## Images and boxes',
        _split_table(card),
        '## Sizes',
        _size_lines(card),
        '## Labelled and unlabelled',
        _subset_table(card['subsets']),
        '## Checks',
        _table(
            ['check', 'found'],
            [
                *(list(item) for item in card['problems_found'].items()),
                ['image without annotation', card['images_without_annotation']],
                ['image without box', sum(s['empty_images'] for s in card['splits'].values())],
            ],
        ),
        _bullets('What --fix did', card['mended']),
        _bullets(
            'Images with the same pixels within one split',
            [', '.join(names) for names in card['repeated_images_within_a_split']],
        ),
        _bullets('Notes', card['notes']),
    ]
    return '\n\n'.join(part for part in parts if part) + '\n'


def _count(images: Sequence[SourceImage], classes: Sequence[str]) -> dict:
    boxes = Counter(box.label for image in images for box in image.boxes)
    return {
        'images': len(images),
        'boxes': sum(boxes.values()),
        'empty_images': sum(not image.boxes for image in images),
        'boxes_per_class': {label: boxes[label] for label in classes},
        'images_per_class': _images_per_class(images, classes),
    }


def _images_per_class(images: Sequence[SourceImage], classes: Sequence[str]) -> dict[str, int]:
    counts = Counter(label for image in images for label in image.labels)
    return {label: counts[label] for label in classes}


def _image_sizes(source: Source) -> dict[str, int]:
    sizes = Counter(f'{i.width}x{i.height}' for i in source.images + source.unlabelled)
    return dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))


def _box_sizes(images: Sequence[SourceImage]) -> dict:
    boxes = [box for image in images for box in image.boxes]
    if not boxes:
        return {}
    areas = np.array([box.area for box in boxes])
    shares = [box.area / (image.width * image.height) for image in images for box in image.boxes]
    measures = {
        'width': [box.width for box in boxes],
        'height': [box.height for box in boxes],
        'square_root_of_area': np.sqrt(areas),
        'share_of_image_side': np.sqrt(shares),
    }
    return {
        'small': int((areas < SMALL).sum()),
        'medium': int(((areas >= SMALL) & (areas <= LARGE)).sum()),
        'large': int((areas > LARGE).sum()),
        'quantiles': {
            measure: {
                f'{q}%': round(float(v), 3)
                for q, v in zip(QUANTILES, np.percentile(values, QUANTILES), strict=True)
            }
            for measure, values in measures.items()
        },
    }


def _split_table(card: Mapping) -> str:
    splits = card['splits']
    rows = [
        ['images', *(s['images'] for s in splits.values())],
        ['images without box', *(s['empty_images'] for s in splits.values())],
        ['boxes', *(s['boxes'] for s in splits.values())],
    ]
    for label in card['classes']:
        rows.append(
            [
                label,
                *(
                    f'{s["boxes_per_class"][label]} boxes in {s["images_per_class"][label]} images'
                    for s in splits.values()
                ),
            ]
        )
    return _table(['', *splits], rows)


def _subset_table(subsets: Mapping[str, Mapping]) -> str:
    parts = [part for part in PARTS if any(part in subset for subset in subsets.values())]
    return _table(
        ['folder', *(PARTS[part] for part in parts)],
        [[folder, *(subset.get(part, 0) for part in parts)] for folder, subset in subsets.items()],
    )


def _size_lines(card: Mapping) -> str:
    sizes = list(card['image_sizes'].items())
    shown = ', '.join(f'{size} ({count})' for size, count in sizes[:8])
    lines = [f'Image sizes: {shown}' + (f' and {len(sizes) - 8} more' if len(sizes) > 8 else '')]
    boxes = card['box_sizes']
    if boxes:
        lines.append(
            f'Boxes: {boxes["small"]} small (under 32x32 px), {boxes["medium"]} medium, '
            f'{boxes["large"]} large (over 96x96 px)'
        )
        lines.append(
            _table(
                ['quantile', *(f'{q} %' for q in QUANTILES)],
                [
                    [measure.replace('_', ' '), *(f'{v:g}' for v in values.values())]
                    for measure, values in boxes['quantiles'].items()
                ],
            )
        )
    return '\n\n'.join(lines)


def _table(head: Sequence, rows: Sequence[Sequence]) -> str:
    """A Markdown table whose columns also line up as plain text."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        '| ' + ' | '.join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + ' |'
        for row in cells
    ]
    lines.insert(1, '|' + '|'.join('-' * (width + 2) for width in widths) + '|')
    return '\n'.join(lines)


def _bullets(title: str, lines: Sequence[str]) -> str:
    return f'## {title}\n\n' + '\n'.join(f'- {line}' for line in lines) if lines else ''
