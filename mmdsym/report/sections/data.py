"""The data card of the prepared data set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mmdsym.report.material import Material
from mmdsym.report.parts import Section, Table, absent


def data_section(material: Material) -> Section:
    """Shows what ``dataset_card.json`` counts."""
    path = Path(material.config.get('data_root') or '') / 'dataset_card.json'
    if not path.is_file():
        return absent(f'There is no data card {path}: tools/prepare_dataset.py writes one.')
    try:
        card = json.loads(path.read_text(encoding='utf-8'))
        tables = [_split_table(card), _check_table(card)]
        subset = card['subsets'].get(material.config.get('split'))
        if subset is not None:
            tables.insert(1, _subset_table(material.config.split, subset))
        text = [_sentence(card), *map(str, card['notes'])]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return absent(f'The data card {path} cannot be read ({error!r}).')
    return Section(text, tables)


def _sentence(card: Mapping) -> str:
    sizes = ', '.join(f'{size} ({count})' for size, count in list(card['image_sizes'].items())[:5])
    boxes = card['box_sizes']
    parts = [f'Data set {card["name"]}, read as layout {card["layout"]}; image sizes: {sizes}']
    if boxes:
        parts.append(
            f'boxes: {boxes["small"]} small (under 32x32 px), {boxes["medium"]} medium, '
            f'{boxes["large"]} large (over 96x96 px)'
        )
    return '; '.join(parts) + '.'


def _split_table(card: Mapping) -> Table:
    splits = card['splits']
    rows = [('images', *(str(split['images']) for split in splits.values()))]
    rows.append(('without a box', *(str(split['empty_images']) for split in splits.values())))
    rows.append(('boxes', *(str(split['boxes']) for split in splits.values())))
    for name in card['classes']:
        counts = [
            f'{split["boxes_per_class"][name]} in {split["images_per_class"][name]} images'
            for split in splits.values()
        ]
        rows.append((name, *counts))
    return Table(('', *splits), rows, 'Images, and boxes of each class')


def _subset_table(split: str, subset: Mapping) -> Table:
    names = ('labelled', 'burn_in', 'calibration', 'unlabelled')
    return Table(
        ('split', *(name.replace('_', '-') for name in names)),
        [(split, *(str(subset[name]) for name in names))],
        'Images that the split takes as labelled (of which for burn-in and for calibration) and as '
        'unlabelled',
    )


def _check_table(card: Mapping) -> Table:
    rows = [(check, str(count)) for check, count in card['problems_found'].items()]
    return Table(('check', 'found'), rows, 'What was checked when the data were prepared')
