"""Labels from a COCO json, as CVAT and others export it."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from mmdsym.datasets.preparation.merging.corrections import IGNORE, Corrections
from mmdsym.datasets.preparation.records import WITHOUT_IMAGE, Box, Problem
from mmdsym.datasets.preparation.sources.coco import edges_of_annotation, read_categories
from mmdsym.errors import UserError

UNCHECKED = 'unchecked_pre_labels'
"""Key of `info` in a COCO json of pre-labels; annotation programs write one without it."""


def is_coco_export(content: Any) -> bool:
    """Whether a json has COCO's three lists."""
    return isinstance(content, dict) and all(
        isinstance(content.get(key), list) and all(isinstance(e, dict) for e in content[key])
        for key in ('images', 'annotations', 'categories')
    )


def read_coco_export(path: Path, content: dict[str, Any], corrections: Corrections) -> None:
    """Adds what a COCO json says; an image that it lists without boxes has no defect.

    Raises:
        UserError: When it holds pre-labels as a detector made them.
    """
    info = content.get('info')
    if isinstance(info, dict) and info.get(UNCHECKED):
        raise UserError(
            f'{path} holds pre-labels that nobody has corrected; import it into an annotation '
            'program, correct it there, and merge what that exports'
        )
    labels = read_categories(path, content)
    rows: dict[Any, list[dict]] = defaultdict(list)
    for row in content['annotations']:
        # As text: what is no id finds no image, instead of failing.
        rows[json.dumps(row.get('image_id'))].append(row)
    for entry in content['images']:
        found = rows.pop(json.dumps(entry.get('id')), [])
        width, height = entry.get('width'), entry.get('height')
        size = (width, height) if width and height else None
        image = corrections.find(path, str(entry.get('file_name', '')), size)
        if image is None:
            continue
        try:
            boxes = [_box(row, labels) for row in found]
        except (TypeError, ValueError) as error:
            corrections.spoil(path, image, f'a box is unreadable ({error})')
        else:
            corrections.add(path, image, boxes)
    for number in rows:
        message = f'annotations belong to image id {number}, which is not listed'
        corrections.problems.append(Problem(WITHOUT_IMAGE, path, message, IGNORE))


def _box(row: dict[str, Any], labels: dict[Any, str]) -> Box:
    number = row.get('category_id')
    edges = edges_of_annotation(row)
    return Box(*edges, labels.get(number, f'number {number}'), bool(row.get('iscrowd')))
