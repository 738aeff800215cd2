"""Which image an annotation file of its own belongs to."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePath

from mmdsym.datasets.preparation.records import WITHOUT_IMAGE, Problem, SourceImage
from mmdsym.datasets.preparation.sources.files import IMAGE_SUFFIXES
from mmdsym.datasets.preparation.sources.folders import (
    Folders,
    folders_in,
    folders_of,
    shared_end,
    shared_start,
)

Fit = tuple[bool, int, bool, int, int]
"""How well a folder of images fits an annotation; the larger, the better."""


class ImagePairing:
    """Knows the images of a source by name and folder.

    Args:
        images: All of them.
        root: Folder that they and their annotations lie below.
    """

    def __init__(self, images: Sequence[SourceImage], root: Path) -> None:
        self._root = root
        self._by_stem: dict[str, list[SourceImage]] = defaultdict(list)
        self._by_place: dict[tuple[Folders, str], list[SourceImage]] = defaultdict(list)
        for image in images:
            self._by_stem[image.stem].append(image)
            self._by_place[folders_of(image.path, root), image.stem].append(image)
        self._by_path = {os.path.normpath(image.path): image for image in images}
        self._folders = {image.path.parent: folders_of(image.path, root) for image in images}
        self._names_repeat = any(
            len({image.path.parent for image in found}) > 1 for found in self._by_stem.values()
        )
        self._fits_of: tuple[Path, Folders] | None = None
        self._fits: dict[Path, Fit] = {}

    def find(
        self, annotation: Path, stems: Sequence[str], named: PurePath
    ) -> SourceImage | Problem:
        """Returns the image that an annotation file belongs to, or why there is none.

        Of several images of one name, the one that the annotation names with its folder wins,
        then one beside it, then one whose sub-folders agree with the named ones, then one whose
        sub-folders agree with those of the annotation. No choice is made between equals, nor is
        an image of another folder taken where names repeat.

        Args:
            annotation: The file.
            stems: Names without extension to look for; the first one that occurs counts.
            named: What the annotation says of its image; an empty path when nothing.
        """
        stem = next((stem for stem in stems if stem in self._by_stem), None)
        if stem is None:
            return missing_image(annotation)
        stated = named if stem_of(named) == stem else PurePath(stem)
        literal = self._by_path.get(os.path.normpath(annotation.parent / stated.as_posix()))
        if literal is not None:
            return literal
        place = folders_in(stated)
        mirrored = self._by_place.get((folders_of(annotation, self._root), stem), [])
        # Spares comparing all folders, of which some sources have one for each image.
        if not place and len(mirrored) == 1:
            return mirrored[0]
        images = self._by_stem[stem]
        fits = self._fits_to(annotation, place)
        best = max(fits[image.path.parent] for image in images)
        found = [image for image in images if fits[image.path.parent] == best]
        named_exactly = [image for image in found if image.path.name == stated.name]
        if len(found) > 1 and len(named_exactly) != 1:
            return self._ambiguous(annotation, found)
        image = (named_exactly or found)[0]
        if self._names_repeat and best < max(fits.values()):
            return self._elsewhere(annotation, image)
        return image

    def _fits_to(self, annotation: Path, place: Folders) -> dict[Path, Fit]:
        """How well each folder of images fits an annotation and the folders that it names."""
        # Annotations come folder by folder.
        if self._fits_of != (annotation.parent, place):
            own = folders_of(annotation, self._root)
            self._fits_of = annotation.parent, place
            self._fits = {
                folder: (
                    folder == annotation.parent,
                    shared_end(known, place),
                    known == own,
                    shared_end(known, own),
                    shared_start(known, own),
                )
                for folder, known in self._folders.items()
            }
        return self._fits

    def _elsewhere(self, annotation: Path, image: SourceImage) -> Problem:
        place = image.path.relative_to(self._root).as_posix()
        return Problem(
            WITHOUT_IMAGE,
            annotation,
            f'its image is missing from its folder; {place} only has the same name',
            'add the image, move the annotation to its image, or let --fix leave it out',
        )

    def _ambiguous(self, annotation: Path, images: Sequence[SourceImage]) -> Problem:
        first, second = (image.path.relative_to(self._root).as_posix() for image in images[:2])
        return Problem(
            WITHOUT_IMAGE,
            annotation,
            f'its image may be {first} or {second}',
            'move it beside its image or into a sub-folder of the same name, or let --fix leave '
            'it out',
        )


def missing_image(annotation: Path) -> Problem:
    """The problem of an annotation file whose image is not there."""
    return Problem(
        WITHOUT_IMAGE,
        annotation,
        'its image is missing',
        'add the image, remove the annotation, or let --fix leave it out',
    )


def stem_of(named: PurePath) -> str:
    """The name of a stated image without extension; some names lack one, and may have dots."""
    return named.stem if named.suffix.lower() in IMAGE_SUFFIXES else named.name
