"""Pre-labels as YOLO text files, which have no room for scores."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath

from mmdsym.datasets.preparation.boxes import edges_to_yolo

from .suggesting import Suggestion, Suggestions


def as_yolo(suggestions: Suggestions) -> dict[str, str]:
    """Returns the files by their path: one below labels/ for each image, and classes.txt.

    Images that :func:`alike` names have none.
    """
    shared = set(alike(suggestions))
    files = {
        f'labels/{_label_file(entry.image.name)}': _lines(entry)
        for entry in suggestions.images
        if entry.image.name not in shared
    }
    return files | {'classes.txt': ''.join(f'{name}\n' for name in suggestions.classes)}


def alike(suggestions: Suggestions) -> list[str]:
    """Returns the images whose label files would have the same name, as of a.png and a.jpg."""
    names = [entry.image.name for entry in suggestions.images]
    times = Counter(map(_label_file, names))
    return [name for name in names if times[_label_file(name)] > 1]


def _label_file(name: str) -> str:
    return str(PurePosixPath(name).with_suffix('.txt'))


def _lines(entry: Suggestion) -> str:
    boxes = entry.boxes
    return ''.join(
        ' '.join([str(label), *(f'{v:.6f}' for v in edges_to_yolo(tuple(corners), *entry.size))])
        + '\n'
        for corners, label in zip(boxes.bboxes.tolist(), boxes.labels.tolist(), strict=True)
    )
