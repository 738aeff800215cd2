"""Labels from Label Studio's JSON export: what people drew, never what a model predicted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdsym.datasets.preparation.boxes import Edges
from mmdsym.datasets.preparation.merging.corrections import LEAVE_OUT, Corrections
from mmdsym.datasets.preparation.records import UNREADABLE, Box, Problem, SourceImage
from mmdsym.datasets.preparation.sources.regions import edges_of_points
from mmdsym.errors import UserError

FILE_KEY = 'mmdsym_file'
"""Field of a task's data that keeps the image's name, whatever its link looks like."""


def is_label_studio_export(content: Any) -> bool:
    """Whether a json is a list of tasks."""
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(task, dict) and isinstance(task.get('data'), dict) for task in content)
    )


def read_label_studio_export(path: Path, content: list[dict], corrections: Corrections) -> None:
    """Adds what people annotated; tasks without an annotation are not labelled yet.

    Raises:
        UserError: When no task has been annotated.
    """
    if not any(task.get('annotations') for task in content):
        raise UserError(
            f'{path} has no annotated task; label some in Label Studio, then export as JSON (not '
            'JSON-MIN)'
        )
    for number, task in enumerate(content, start=1):
        annotations = [a for a in task.get('annotations') or [] if _is_submitted(a)]
        if not annotations:
            continue
        reference = _reference(task['data'])
        if reference is None:
            message = f'task {number} names no image'
            corrections.problems.append(Problem(UNREADABLE, path, message, LEAVE_OUT))
            continue
        image = corrections.find(path, reference)
        for annotation in annotations if image is not None else []:
            try:
                boxes = _boxes(annotation.get('result') or [], image)
            except (TypeError, ValueError, LookupError, AttributeError) as error:
                corrections.spoil(path, image, f'a region is unreadable ({error})')
            else:
                corrections.add(path, image, boxes)
                corrections.submitted.add(image.name)


def _is_submitted(annotation: Any) -> bool:
    return isinstance(annotation, Mapping) and not annotation.get('was_cancelled')


def _reference(data: Mapping[str, Any]) -> str | None:
    known = data.get(FILE_KEY) or data.get('image')
    texts = [known] if known else [value for value in data.values() if isinstance(value, str)]
    return str(texts[0]) if texts else None


def _boxes(result: list[Mapping[str, Any]], image: SourceImage) -> list[Box]:
    boxes = []
    for region in result:
        kind, value = region['type'], region['value']
        if kind == 'choices' or kind == 'textarea':
            continue  # Remarks on the whole image.
        if kind == 'rectanglelabels':
            edges = _rectangle(value, image)
        elif kind == 'polygonlabels':
            edges = edges_of_points([_to_pixels(x, y, image) for x, y in value['points']])
        else:
            raise ValueError(f'its type {kind} is neither rectanglelabels nor polygonlabels')
        boxes += [Box(*edges, label=label) for label in value[kind]]
    return boxes


def _rectangle(value: Mapping[str, Any], image: SourceImage) -> Edges:
    """The edges around a rectangle, which may be turned about its top left corner."""
    left, top = _to_pixels(value['x'], value['y'], image)
    width, height = _to_pixels(value['width'], value['height'], image)
    turn = math.radians(float(value.get('rotation') or 0))
    corners = [(0.0, 0.0), (width, 0.0), (0.0, height), (width, height)]
    return edges_of_points(
        [
            (
                left + x * math.cos(turn) - y * math.sin(turn),
                top + x * math.sin(turn) + y * math.cos(turn),
            )
            for x, y in corners
        ]
    )


def _to_pixels(x: Any, y: Any, image: SourceImage) -> tuple[float, float]:
    """Per cent of the image's sides to pixels."""
    return float(x) / 100 * image.width, float(y) / 100 * image.height
