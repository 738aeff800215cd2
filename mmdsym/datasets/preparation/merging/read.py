"""Reading an export, whatever its format."""

from __future__ import annotations

import json
from pathlib import Path

from mmdsym.datasets.preparation.merging.coco_export import is_coco_export, read_coco_export
from mmdsym.datasets.preparation.merging.corrections import Corrections
from mmdsym.datasets.preparation.merging.finding import ImageFinder
from mmdsym.datasets.preparation.merging.label_studio_export import (
    is_label_studio_export,
    read_label_studio_export,
)
from mmdsym.datasets.preparation.merging.yolo_export import read_yolo_export
from mmdsym.datasets.preparation.sources.files import list_files
from mmdsym.datasets.preparation.sources.yolo import label_files
from mmdsym.errors import UserError


def read_corrections(export: Path, finder: ImageFinder) -> Corrections:
    """Reads COCO or Label Studio jsons, or YOLO text files.

    Args:
        export: A json, or a folder with one kind of export.
        finder: Finds the images of the data set.

    Raises:
        UserError: When a json is unreadable, or nothing is understood.
    """
    corrections = Corrections(finder)
    understood = False
    for path in [export] if export.is_file() else list_files(export, {'.json'}):
        understood |= _read_json(path, corrections)
    if not understood and export.is_dir() and label_files(export):
        read_yolo_export(export, corrections)
        understood = True
    if not understood:
        raise UserError(
            f'{export} holds no labels that can be merged; give a COCO json, a JSON export of '
            'Label Studio (not JSON-MIN), or a folder of YOLO text files with classes.txt'
        )
    return corrections


def _read_json(path: Path, corrections: Corrections) -> bool:
    """Adds what a json says; returns whether it is one of the known kinds."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path} is not readable as JSON ({error}); export it again') from error
    if is_coco_export(content):
        read_coco_export(path, content, corrections)
    elif is_label_studio_export(content):
        read_label_studio_export(path, content, corrections)
    else:
        return False
    return True
