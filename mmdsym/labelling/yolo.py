"""Pre-labels as YOLO text files, which have no room for scores."""

from __future__ import annotations

from pathlib import PurePosixPath

from mmdsym.datasets.preparation.boxes import edges_to_yolo

from .suggesting import Suggestion, Suggestions


def as_yolo(suggestions: Suggestions) -> dict[str, str]:
    """Returns the files by their path: one below labels/ for each image, and classes.txt."""
    files = {
        f'labels/{PurePosixPath(entry.image.name).with_suffix(".txt")}': _lines(entry)
        for entry in suggestions.images
    }
    return files | {'classes.txt': ''.join(f'{name}\n' for name in suggestions.classes)}


def _lines(entry: Suggestion) -> str:
    boxes = entry.boxes
    return ''.join(
        ' '.join([str(label), *(f'{v:.6f}' for v in edges_to_yolo(tuple(corners), *entry.size))])
        + '\n'
        for corners, label in zip(boxes.bboxes.tolist(), boxes.labels.tolist(), strict=True)
    )
