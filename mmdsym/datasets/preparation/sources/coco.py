"""COCO jsons with their images, one json for all or one for each split."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmdsym.datasets.preparation.boxes import Edges, coco_to_edges
from mmdsym.datasets.preparation.records import (
    DUPLICATE,
    SECOND_ANNOTATION,
    UNREADABLE,
    WITHOUT_IMAGE,
    Box,
    Problem,
    Source,
    SourceImage,
)
from mmdsym.datasets.preparation.sources.files import (
    list_files,
    list_images,
    names_for,
    split_of_name,
)
from mmdsym.datasets.preparation.sources.folders import stated_path
from mmdsym.datasets.preparation.sources.listed_files import ListedFiles
from mmdsym.datasets.preparation.sources.regions import edges_of_segmentation
from mmdsym.errors import UserError

ROBOFLOW_NAME = '_annotations.coco.json'
MISSING_CURE = (
    'add the image, name its folder in the entry, remove the entry, or let --fix leave it out'
)
IMAGE_CURE = 'correct the entry, or let --fix leave out its image'
IGNORE_CURE = 'correct or remove the entry, or let --fix ignore it'

Id = int | float | str | None

Document = tuple[Path, str | None, dict]
"""A json, its split, and what it says."""


def is_coco(root: Path) -> bool:
    """Whether there is a json with COCO's lists of images, annotations and categories."""
    for path in list_files(root, {'.json'}):
        with suppress(UserError):
            if _load(path) is not None:
                return True
    return False


def read_coco(root: Path) -> Source:
    """Reads the jsons of a folder and finds their images.

    A json's own name or a folder above it says its split (`train`, `val`, `valid`, `test`).

    Raises:
        UserError: When no json can be read or two describe the same split.
    """
    documents, unused = choose_documents(root)
    classes, headings = _class_names(documents)
    reader = _Reader(Source('coco', root, classes, []), root)
    for path, _, content in documents:
        reader.files.claim(file_names(content), path)
    # Held-out jsons come first: an image that training lists as well stays held out.
    order = {'val': 0, 'test': 1, 'train': 2, None: 3}
    for path, split, content in sorted(documents, key=lambda document: order[document[1]]):
        reader.read(path, split, content)
    if unused:
        reader.source.notes.append(
            f'{", ".join(unused)} says no split, as other jsons do, and was not used: all images '
            'with boxes in it stand in the others.'
        )
    if headings:
        reader.source.notes.append(
            f'{", ".join(headings)} heads other categories and has no box: it is no class.'
        )
    unlisted = reader.count_unlisted()
    if unlisted:
        reader.source.notes.append(
            f'{unlisted} image files are listed in no json that is used and were left out; give '
            'their folder with --unlabelled-dir to use them.'
        )
    return reader.source


def choose_documents(root: Path) -> tuple[list[Document], list[str]]:
    """Chooses the jsons to read.

    Where some say their split, those that say none are left out: they commonly hold all of it.

    Returns:
        The jsons with their splits, and the names of those left out that have annotations.

    Raises:
        UserError: When there is none, when two describe the same split, or when one that says no
            split has boxes of images that the others lack.
    """
    by_split: dict[str | None, list[tuple[Path, dict]]] = defaultdict(list)
    for path in list_files(root, {'.json'}):
        content = _load(path)
        if content is not None:
            by_split[split_of_name(path, root)].append((path, content))
    if not by_split:
        raise UserError(f'{root} holds no readable COCO json; choose another --layout')
    undecided = by_split.pop(None, []) if set(by_split) - {None} else []
    for split, found in by_split.items():
        if len(found) > 1:
            names = ' and '.join(str(path.relative_to(root)) for path, _ in found[:2])
            raise UserError(
                f'{names} in {root} both describe {split or "all images"}; keep only the one '
                'that shall be used'
            )
    documents = [(found[0][0], split, found[0][1]) for split, found in by_split.items()]
    undecided = [(path, content) for path, content in undecided if content['annotations']]
    for path, content in undecided:
        _refuse_to_lose(path, content, documents)
    return documents, [path.relative_to(root).as_posix() for path, _ in undecided]


def _refuse_to_lose(path: Path, content: Mapping, documents: Sequence[Document]) -> None:
    """Raises when a json that is left out has boxes of images that no other json lists."""
    listed = {stated_path(name).name for _, _, other in documents for name in file_names(other)}
    with_boxes = {id_of(annotation, 'image_id') for annotation in content['annotations']}
    images = [image for image in content['images'] if id_of(image) in with_boxes]
    lost = [n for n in file_names({'images': images}) if stated_path(n).name not in listed]
    if lost:
        raise UserError(
            f'{path} says no split while {documents[0][0].name} does, and {len(lost)} of its '
            f'images are in no other json, such as {lost[0]}; put train, val or test into its '
            'name, or remove it'
        )


def file_names(content: Mapping[str, Any]) -> list[str]:
    """The files that a json lists, as it states them."""
    return [str(entry.get('file_name', '')) for entry in content['images']]


class _Reader:
    """Adds the images and boxes of one json after another to a source."""

    def __init__(self, source: Source, root: Path) -> None:
        self.source = source
        paths = list_images(root)
        self._names = names_for(paths, root)
        self._taken: dict[Path, str | None] = {}
        self.files = ListedFiles(paths, root)

    def count_unlisted(self) -> int:
        """How many image files no json has listed so far."""
        return len(self._names) - len(self._taken)

    def read(self, document: Path, split: str | None, content: Mapping[str, Any]) -> None:
        """Adds what one json describes.

        Raises:
            UserError: When one id stands for several images or classes.
        """
        images = self._add_images(document, split, content['images'])
        labels = read_categories(document, content)
        for annotation in content['annotations']:
            name = f'annotation {annotation.get("id")}'
            image_id = id_of(annotation, 'image_id')
            if image_id not in images:
                message = f'{name} belongs to image id {image_id}, which is not listed'
                self._tell(WITHOUT_IMAGE, document, message, IGNORE_CURE)
            elif images[image_id] is not None:
                self._add_box(document, images[image_id], name, annotation, labels)

    def _add_images(
        self, document: Path, split: str | None, entries: Sequence[Mapping]
    ) -> dict[Id, SourceImage | None]:
        """Adds images; returns them by their id, None for those left out."""
        images: dict[Id, SourceImage | None] = {}
        names: dict[Id, str] = {}
        for entry in entries:
            number, name = id_of(entry), str(entry.get('file_name'))
            if names.setdefault(number, name) != name:
                raise UserError(
                    f'{document} gives image id {number} to both {names[number]!r} and {name!r}; '
                    'give each image an id of its own'
                )
            # Of an image that is listed twice, the first entry keeps the boxes.
            images.setdefault(number, self._add_image(document, split, entry))
        return images

    def _add_image(self, document: Path, split: str | None, entry: Mapping) -> SourceImage | None:
        """Adds an image; returns None when its file is missing or listed already."""
        file_name = str(entry.get('file_name', ''))
        try:
            path = self.files.find(file_name, document, split)
        except LookupError as error:
            self._tell(WITHOUT_IMAGE, document, str(error.args[0]), MISSING_CURE)
            return None
        if path in self._taken:
            other = self._taken[path]
            message = f'image {file_name} is listed twice (for {other or "all"}, {split or "all"})'
            kind = DUPLICATE if other != split else SECOND_ANNOTATION
            self._tell(kind, document, message, IGNORE_CURE)
            return None
        self._taken[path] = split
        image = SourceImage(path, self._names[path], split=split, annotation=document)
        image.declared_size = _declared_size(entry)
        self.source.images.append(image)
        return image

    def _add_box(
        self,
        document: Path,
        image: SourceImage,
        name: str,
        annotation: Mapping[str, Any],
        labels: Mapping[Any, str],
    ) -> None:
        try:
            edges = edges_of_annotation(annotation)
        except (TypeError, ValueError, OverflowError) as error:
            message = f'{name} of image {image.name} has no readable box ({error})'
            self._tell(UNREADABLE, document, message, IMAGE_CURE, image.name)
            return
        number = id_of(annotation, 'category_id')
        label = labels.get(number, f'number {number}')
        image.boxes.append(Box(*edges, label=label, ignore=bool(annotation.get('iscrowd'))))

    def _tell(self, kind: str, file: Path, message: str, cure: str, image: str = '') -> None:
        self.source.problems.append(Problem(kind, file, message, cure, image))


def id_of(entry: Mapping[str, Any], key: str = 'id') -> Id:
    """The id under a key; a list or an object, which is none, as text that can be named."""
    value = entry.get(key)
    return str(value) if isinstance(value, (list, dict)) else value


def edges_of_annotation(annotation: Mapping[str, Any]) -> Edges:
    """The edges of an annotation's box, or of its polygons or mask where it has none.

    Raises:
        ValueError: When it has none of them, or one that encloses nothing.
        TypeError: When its numbers are none.
    """
    bbox, segmentation = annotation.get('bbox'), annotation.get('segmentation')
    # Some programs write zeros in place of a box that they leave out.
    if bbox and (any(bbox) or not segmentation):
        x, y, width, height = (float(value) for value in bbox)
        return coco_to_edges((x, y, width, height))
    return edges_of_segmentation(segmentation)


def read_categories(path: Path, content: Mapping[str, Any]) -> dict[Id, str]:
    """Category ids to names; ids may have gaps and come in any order.

    Raises:
        UserError: When one id stands for several names.
    """
    names: dict[Id, str] = {}
    for category in content['categories']:
        number, name = id_of(category), str(category.get('name'))
        if names.setdefault(number, name) != name:
            raise UserError(
                f'{path} gives category id {number} to both {names[number]!r} and {name!r}; give '
                'each class an id of its own'
            )
    return names


def _class_names(
    documents: Sequence[tuple[Path, str | None, Mapping[str, Any]]],
) -> tuple[list[str], list[str]]:
    """Class names by category id, and what was dropped: headings that Roboflow adds."""
    found: list[tuple[str, Any, str, bool]] = []
    for path, _, content in documents:
        labels = read_categories(path, content)
        used = {labels.get(id_of(a, 'category_id')) for a in content['annotations']}
        for category in content['categories']:
            number, name = id_of(category), str(category.get('name'))
            heads = name not in used and _is_heading(category, content['categories'], path)
            found.append((str(type(number)), number, name, heads))
    ordered = sorted(found, key=lambda entry: entry[:2])
    names = list(dict.fromkeys(name for _, _, name, heads in ordered if not heads))
    # What another document has boxes of is a class after all.
    headings = dict.fromkeys(name for _, _, name, heads in ordered if heads and name not in names)
    return names, list(headings)


def _is_heading(category: Mapping, categories: Sequence[Mapping], path: Path) -> bool:
    """Whether a category merely heads others, or is the root that Roboflow puts before them."""
    name = category.get('name')
    if any(c.get('supercategory') == name and c.get('name') != name for c in categories):
        return True
    is_root = category.get('id') == 0 and category.get('supercategory') in (None, '', 'none')
    return is_root and len(categories) > 1 and path.name.lower() == ROBOFLOW_NAME


def _declared_size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = entry.get('width'), entry.get('height')
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def _load(path: Path) -> dict | None:
    """A COCO document; None when the file is something else."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path} is not readable as JSON ({error}); mend or remove it') from error
    lists = ('images', 'annotations', 'categories')
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) and all(isinstance(e, dict) for e in content[key])
        for key in lists
    ):
        return None
    return content
