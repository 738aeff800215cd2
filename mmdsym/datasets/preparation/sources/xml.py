"""Reading Pascal VOC annotation files and pairing them with their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from mmdsym.datasets.preparation.boxes import Edges, voc_is_one_based, voc_to_edges
from mmdsym.datasets.preparation.records import (
    SECOND_ANNOTATION,
    UNREADABLE,
    Box,
    Problem,
    SourceImage,
)
from mmdsym.datasets.preparation.sources.folders import stated_path
from mmdsym.datasets.preparation.sources.pairing import ImagePairing, stem_of

UNREADABLE_CURE = 'mend or remove the file, or let --fix leave out its image'


@dataclass
class VocFile:
    """What one annotation file says.

    Args:
        path: The file.
        image: The image that it speaks of, as it says itself.
        size: (width, height) that it claims, or None.
        objects: Class name, (xmin, ymin, xmax, ymax) and the `difficult` flag of each object.
    """

    path: Path
    image: PurePath
    size: tuple[int, int] | None
    objects: list[tuple[str, Edges, bool]]


def read_voc_file(path: Path) -> VocFile:
    """Reads one annotation file.

    Raises:
        ValueError: When it is not a VOC annotation; the message says why.
    """
    try:
        root = parse(path).getroot()
    # LookupError and ValueError: an encoding that nobody knows, or that is none of text.
    except (ParseError, DefusedXmlException, OSError, LookupError, ValueError) as error:
        raise ValueError(f'is not readable as XML ({type(error).__name__}: {error})') from error
    if root.tag != 'annotation':
        raise ValueError(f'is XML but no VOC annotation (its root is <{root.tag}>)')
    return VocFile(
        path=path,
        image=stated_path((root.findtext('filename') or path.stem).strip()),
        size=_declared_size(root),
        objects=[_read_object(element) for element in root.findall('object')],
    )


def attach_voc_annotations(
    images: Sequence[SourceImage], files: Sequence[Path], root: Path
) -> tuple[list[Problem], list[str]]:
    """Gives images the boxes of their annotation files.

    A file belongs to the image of the same stem; only where there is none, to the image that it
    names inside. Of several images of one stem, the one whose sub-folders fit best wins.

    Args:
        images: Those that may have annotations.
        files: The annotation files.
        root: Folder that all of them lie below.

    Returns:
        Problems found, and notes on how coordinates were read.
    """
    problems: list[Problem] = []
    pairs: list[tuple[VocFile, SourceImage]] = []
    pairing = ImagePairing(images, root)
    for path in files:
        try:
            voc = read_voc_file(path)
        except ValueError as error:
            image = pairing.find(path, [path.stem], PurePath())
            problems.append(_unreadable(path, str(error), image))
            continue
        image = pairing.find(path, [path.stem, stem_of(voc.image)], voc.image)
        if isinstance(image, Problem):
            problems.append(image)
        elif image.annotation is not None:
            problems.append(_second_annotation(path, image))
        else:
            image.annotation, image.declared_size = path, voc.size
            pairs.append((voc, image))
    one_based = voc_is_one_based(corners for voc, _ in pairs for _, corners, _ in voc.objects)
    for voc, image in pairs:
        image.boxes = [
            Box(*voc_to_edges(corners, one_based), label=label) for label, corners, _ in voc.objects
        ]
    return problems, _notes(one_based, [voc for voc, _ in pairs])


def _unreadable(path: Path, reason: str, image: SourceImage | Problem) -> Problem:
    if isinstance(image, Problem):
        return Problem(UNREADABLE, path, reason, UNREADABLE_CURE)
    image.annotation = path
    return Problem(UNREADABLE, path, reason, UNREADABLE_CURE, image.name)


def _second_annotation(path: Path, image: SourceImage) -> Problem:
    return Problem(
        SECOND_ANNOTATION,
        path,
        f'image {image.name} already has the annotation {image.annotation}',
        'remove one of the two, or let --fix leave this one out',
    )


def _read_object(element: Element) -> tuple[str, Edges, bool]:
    name = (element.findtext('name') or '').strip()
    if not name:
        raise ValueError('holds an object without <name>')
    corners = []
    for tag in ('xmin', 'ymin', 'xmax', 'ymax'):
        try:
            corners.append(float(element.findtext(f'bndbox/{tag}') or 'missing'))
        except ValueError as error:
            raise ValueError(f'holds a box of {name} whose <{tag}> is no number') from error
    return name, tuple(corners), (element.findtext('difficult') or '0').strip() == '1'


def _declared_size(root: Element) -> tuple[int, int] | None:
    try:
        size = tuple(int(float(root.findtext(f'size/{tag}', ''))) for tag in ('width', 'height'))
    except (ValueError, OverflowError):
        return None
    return size if all(size) else None


def _notes(one_based: bool, files: Sequence[VocFile]) -> list[str]:
    notes = [
        'VOC coordinates count from 1 and include the last pixel (none starts at 0 more often '
        'than at 1); 1 was subtracted from xmin and ymin.'
        if one_based
        else 'VOC coordinates count from 0 (boxes start at 0); they were taken as they stand.'
    ]
    difficult = sum(flag for voc in files for _, _, flag in voc.objects)
    if difficult:
        # Published NEU-DET results count them; COCO's iscrowd would mean something else.
        notes.append(f'{difficult} boxes are marked difficult; they count like any other.')
    return notes
