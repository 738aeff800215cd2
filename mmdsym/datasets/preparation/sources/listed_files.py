"""Finding the files that a COCO json lists, wherever the layout keeps them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

from mmdsym.datasets.preparation.sources.files import split_of_folder
from mmdsym.datasets.preparation.sources.folders import (
    Folders,
    folders_in,
    folders_of,
    shared_end,
    shared_start,
    stated_path,
)

Fit = tuple[int, bool, bool, int]
"""How well a file fits an entry; the larger, the better."""


class ListedFiles:
    """Knows the image files of a source by name and folder.

    Args:
        paths: All of them.
        root: Folder that they lie below.
    """

    def __init__(self, paths: Sequence[Path], root: Path) -> None:
        self._root = root
        self._by_path = {os.path.normpath(path): path for path in paths}
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for path in paths:
            self._by_name[path.name].append(path)
        self._splits = {path.parent: split_of_folder(path, root) for path in paths}
        above = set(self._splits).union(*(folder.parents for folder in self._splits))
        self._image_folders = {
            folder: folders_of(folder / 'image', root)
            for folder in above
            if folder.is_relative_to(root)
        }
        self._folders = {path for path in root.rglob('*') if path.is_dir()}
        self._closer: dict[tuple[Folders, int], set[Path]] = {}
        self._claimed: set[Path] = set()

    def claim(self, file_names: Iterable[str], document: Path) -> None:
        """Notes which files a json names with their folders, so that they stand for no other."""
        for file_name in file_names:
            self._claimed.update(self._exact(stated_path(file_name), document))

    def find(self, file_name: str, document: Path, split: str | None) -> Path:
        """Returns the file that an entry names.

        The folders that it names need not exist here, as those of another machine do not. Where
        they do, no file from elsewhere stands for one that they lack. Of several files of that
        name, the one that shares more of the named path wins, then one in a folder of the same
        split, then the one closest to the json.

        Args:
            file_name: As the entry states it.
            document: The json.
            split: The json's split.

        Raises:
            LookupError: There is none, or several fit alike; the message says which.
        """
        named = stated_path(file_name)
        exact = self._exact(named, document)
        found = exact or self._by_name.get(named.name, [])
        fits = [self._fit(path, named, document, split) for path in found]
        best = max(fits, default=None)
        found = _uppermost([path for path, fit in zip(found, fits, strict=True) if fit == best])
        if not found:
            raise LookupError(f'image {file_name} is missing')
        places = [path.relative_to(self._root).as_posix() for path in found]
        if not exact and any(self._is_another(path, named, document) for path in found):
            raise LookupError(f'image {file_name} is missing ({places[0]} only has the same name)')
        if len(found) > 1:
            raise LookupError(f'image {file_name} may be {places[0]} or {places[1]}')
        return found[0]

    def _exact(self, named: PurePath, document: Path) -> list[Path]:
        """The files that lie where an entry says; none for an entry that says no folder."""
        if len(named.parts) < 2:
            return []
        places = (os.path.normpath(b / named.as_posix()) for b in (self._root, document.parent))
        return [self._by_path[place] for place in dict.fromkeys(places) if place in self._by_path]

    def _fit(self, path: Path, named: PurePath, document: Path, split: str | None) -> Fit:
        return (
            shared_end(path.parts, named.parts),
            self._splits[path.parent] == split,
            path.parent == document.parent,
            shared_start(path.parts, document.parts),
        )

    def _is_another(self, path: Path, named: PurePath, document: Path) -> bool:
        """Whether the folders that an entry names tell against a file of the same name."""
        if len(named.parts) < 2:
            return False
        if path in self._claimed:
            return True
        place = folders_in(named)
        shared = shared_end(folders_of(path, self._root), place)
        stated = {Path(os.path.normpath(self._root / named.parent.as_posix()))} & self._folders
        contradicting = self._folders_closer_to(place, shared) | stated
        return not all(path.is_relative_to(folder) for folder in contradicting)

    def _folders_closer_to(self, place: Folders, shared: int) -> set[Path]:
        """The folders with images that share more than so many parts with a named place."""
        if (place, shared) not in self._closer:
            self._closer[place, shared] = {
                folder
                for folder, parts in self._image_folders.items()
                if shared_end(parts, place) > shared
            }
        return self._closer[place, shared]


def _uppermost(paths: Sequence[Path]) -> Sequence[Path]:
    """The path whose folder holds those of all others, else all of them."""
    above = [p for p in paths if all(other.parent.is_relative_to(p.parent) for other in paths)]
    return above[:1] or paths
