"""YOLO folders: a text file per image with class number and relative box on each line."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from mmdsym.datasets.preparation.boxes import yolo_to_edges
from mmdsym.datasets.preparation.inspection import readable_size
from mmdsym.datasets.preparation.records import (
    UNREADABLE,
    Box,
    Problem,
    Source,
    SourceImage,
)
from mmdsym.datasets.preparation.sources.files import (
    list_files,
    list_images,
    names_for,
    read_lines,
)
from mmdsym.datasets.preparation.sources.pairing import missing_image
from mmdsym.datasets.preparation.sources.xml import UNREADABLE_CURE
from mmdsym.datasets.preparation.sources.yolo_splits import read_splits, read_yaml
from mmdsym.errors import UserError

CLASS_LISTS = frozenset({'classes', 'predefined_classes'})
NOT_LABELS = frozenset({'train', 'val', 'valid', 'test', 'readme', 'readme.roboflow'})

MAX_CLASSES = 10000
"""More would be a slip: a list is made that is as long as the largest number says."""


def is_yolo(root: Path) -> bool:
    """Whether there are label files: text files in a labels/ folder or beside their images."""
    stems = {path.stem for path in list_images(root)}
    return any(path.stem in stems for path in label_files(root))


def read_yolo(root: Path, classes: Sequence[str] | None = None) -> Source:
    """Reads images and label files, whether split above or below images/ and labels/, or not.

    The split comes from data.yaml, else from folders called train, val and so on, else it stays
    open.

    Args:
        root: The folder.
        classes: Class names in the order of the numbers; taken when the folder does not say.

    Raises:
        UserError: When nothing says what the class numbers mean, or data.yaml or a list is
            unreadable.
    """
    names = read_class_names(root) or list(classes or [])
    if not names:
        raise UserError(
            f'{root} has neither data.yaml nor classes.txt, so its class numbers have no names; '
            'give them in order with --classes'
        )
    paths = list_images(root)
    image_names = names_for(paths, root)
    splits, notes = read_splits(root, paths)
    labels = {path: path for path in label_files(root)}
    source = Source('yolo', root, names, [], notes=notes)
    for path in paths:
        image = SourceImage(path, image_names[path], split=splits[path])
        candidates = (path.with_suffix('.txt'), _in_labels_folder(path, root))
        image.annotation = next((labels.pop(c) for c in candidates if c in labels), None)
        if image.annotation is not None:
            source.problems += _read_labels(image, names)
        source.images.append(image)
    source.problems += [missing_image(path) for path in labels]
    return source


def read_class_names(root: Path) -> list[str]:
    """Class names from data.yaml, classes.txt or obj.names; empty when there is none."""
    for path in list_files(root, {'.yaml', '.yml'}):
        names = _names_in_yaml(path)
        if names:
            return names
    for path in list_files(root, {'.txt', '.names'}):
        if path.stem.lower() in CLASS_LISTS or path.name.lower() == 'obj.names':
            return read_lines(path)
    return []


def parse_label_line(line: str, width: int, height: int) -> tuple[int, tuple]:
    """Reads one line: class number with a relative box, or with a relative polygon.

    Args:
        line: Such as `2 0.5 0.5 0.25 0.1`.
        width: Image width in pixels.
        height: Image height in pixels.

    Returns:
        The class number and the box's edges in pixels (a polygon's bounding box).

    Raises:
        ValueError: When the line is neither.
    """
    fields = line.split()
    number, values = int(fields[0]), [float(field) for field in fields[1:]]
    if len(values) == 4:
        return number, yolo_to_edges(tuple(values), width, height)
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f'{len(values)} numbers after the class')
    xs, ys = [x * width for x in values[::2]], [y * height for y in values[1::2]]
    return number, (min(xs), min(ys), max(xs), max(ys))


def _read_labels(image: SourceImage, names: Sequence[str]) -> list[Problem]:
    """Reads an image's label file; an unreadable image keeps no boxes and is told later."""
    size = readable_size(image.path)
    if size is None:
        return []
    try:
        text = image.annotation.read_text('utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        return [_unreadable(image, f'is not readable as text ({error})')]
    lines = [line for line in text.split('\n') if line.strip()]
    for row, line in enumerate(lines, start=1):
        try:
            number, edges = parse_label_line(line, *size)
        except ValueError as error:
            return [_unreadable(image, f'line {row} is no YOLO label ({error})')]
        known = 0 <= number < len(names)
        image.boxes.append(Box(*edges, label=names[number] if known else f'number {number}'))
    return []


def _unreadable(image: SourceImage, reason: str) -> Problem:
    return Problem(UNREADABLE, image.annotation, reason, UNREADABLE_CURE, image.name)


def label_files(root: Path) -> list[Path]:
    """All label files: those below labels/ where there are any, else all text files but lists."""
    files = list_files(root, {'.txt'})
    in_labels = [path for path in files if 'labels' in path.relative_to(root).parts[:-1]]
    if in_labels:
        return [path for path in in_labels if path.stem.lower() not in CLASS_LISTS]
    images = {path.with_suffix('') for path in list_images(root)}
    return [path for path in files if not _is_list(path, images)]


def _is_list(path: Path, images: Collection[Path]) -> bool:
    """Whether a text file is a list or a note; beside an image of its name it is a label."""
    stem = path.stem.lower()
    return stem in CLASS_LISTS or (stem in NOT_LABELS and path.with_suffix('') not in images)


def _in_labels_folder(image: Path, root: Path) -> Path:
    """Where the label of an image below an images/ folder lies."""
    parts = list(image.relative_to(root).with_suffix('.txt').parts)
    for index in reversed(range(len(parts) - 1)):
        if parts[index].lower() == 'images':
            parts[index] = 'labels'
            break
    return root.joinpath(*parts)


def _names_in_yaml(path: Path) -> list[str]:
    names = read_yaml(path).get('names')
    if isinstance(names, Mapping):
        try:
            numbers = {int(number): str(name) for number, name in names.items()}
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(f'{path}: names must go by number; mend it') from error
        if any(not 0 <= number < MAX_CLASSES for number in numbers):
            raise UserError(
                f'{path}: names must go by number, from 0 and below {MAX_CLASSES}; mend it'
            )
        return [numbers.get(i, f'number {i}') for i in range(max(numbers, default=-1) + 1)]
    return [str(name) for name in names] if isinstance(names, list) else []
