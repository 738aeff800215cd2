"""Labels from YOLO text files with their list of classes."""

from __future__ import annotations

from pathlib import Path

from mmdsym.datasets.preparation.merging.corrections import Corrections
from mmdsym.datasets.preparation.records import Box
from mmdsym.datasets.preparation.sources.yolo import (
    label_files,
    parse_label_line,
    read_class_names,
)
from mmdsym.errors import UserError


def read_yolo_export(root: Path, corrections: Corrections) -> None:
    """Adds what the label files of a folder say; an empty one says that there is no defect.

    Raises:
        UserError: When nothing says what the class numbers mean.
    """
    names = read_class_names(root)
    if not names:
        raise UserError(
            f'{root} has neither data.yaml nor classes.txt, so its class numbers have no names; '
            'add the list of classes that the export was made with'
        )
    for path in label_files(root):
        image = corrections.find(path, path.relative_to(root).with_suffix('').as_posix())
        if image is None:
            continue
        try:
            boxes = _read_boxes(path, names, (image.width, image.height))
        except (OSError, ValueError) as error:
            corrections.spoil(path, image, str(error))
        else:
            corrections.add(path, image, boxes)


def _read_boxes(path: Path, names: list[str], size: tuple[int, int]) -> list[Box]:
    boxes = []
    for row, line in enumerate(path.read_text('utf-8-sig').split('\n'), start=1):
        if not line.strip():
            continue
        try:
            number, edges = parse_label_line(line, *size)
        except ValueError as error:
            raise ValueError(f'line {row} is no YOLO label ({error})') from error
        known = 0 <= number < len(names)
        boxes.append(Box(*edges, label=names[number] if known else f'number {number}'))
    return boxes
