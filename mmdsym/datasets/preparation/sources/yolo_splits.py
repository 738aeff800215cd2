"""The split of a YOLO folder, as its data.yaml states it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from mmdsym.datasets.preparation.sources.files import list_files, read_lines, split_of_folder
from mmdsym.errors import UserError

SPLIT_KEYS = {'train': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'test': 'test'}


def read_yaml(path: Path) -> Mapping[Any, Any]:
    """What a YAML file maps; empty when it holds something else.

    Raises:
        UserError: When it is unreadable.
    """
    try:
        content = yaml.safe_load(path.read_text('utf-8-sig'))
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f'{path} is not readable as YAML; mend or remove it') from error
    return content if isinstance(content, Mapping) else {}


def read_splits(root: Path, images: Sequence[Path]) -> tuple[dict[Path, str | None], list[str]]:
    """Says of each image to which split it belongs.

    What data.yaml states counts before the names of folders; these still say splits that it does
    not state.

    Returns:
        The splits, and notes on statements that could not be followed.

    Raises:
        UserError: When a YAML file or a list is unreadable.
    """
    by_folder = {path: split_of_folder(path, root) for path in images}
    document, places = _stated_splits(root)
    if document is None:
        return by_folder, []
    found, notes = _Places(root, images, document).images_of(places)
    shared = [path for path, splits in found.items() if len(splits) > 1 and 'train' in splits]
    if shared:
        first = shared[0].relative_to(root).as_posix()
        notes.append(
            f'{document.name} has {len(shared)} images both to train and to evaluate, such as '
            f'{first}: the split that it states is not used.'
        )
        return by_folder, notes
    decided = set().union(*found.values())
    rest = {path: None if split in decided else split for path, split in by_folder.items()}
    # Some state the same images for val and for test.
    stated = {path: 'val' if 'val' in splits else min(splits) for path, splits in found.items()}
    return rest | stated, notes


def _stated_splits(root: Path) -> tuple[Path | None, dict[str, list[str]]]:
    """The YAML file that states splits, one with class names first, and what it states."""
    documents = [(path, read_yaml(path)) for path in list_files(root, {'.yaml', '.yml'})]
    for path, content in sorted(documents, key=lambda entry: 'names' not in entry[1]):
        stated: dict[str, list[str]] = defaultdict(list)
        for key, split in SPLIT_KEYS.items():
            stated[split] += _texts(content.get(key))
        if any(stated.values()):
            return path, {split: places for split, places in stated.items() if places}
    return None, {}


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str) and text.strip()]


class _Places:
    """Finds what a YAML file names: folders, lists and single images of a source.

    Only what lies in the source is ever looked at, whatever paths are stated.
    """

    def __init__(self, root: Path, images: Sequence[Path], document: Path) -> None:
        self._document = document
        self._lists = {os.path.abspath(path): path for path in list_files(root, {'.txt'})}
        self._images = {os.path.abspath(path): path for path in images}
        self._below: dict[str, list[Path]] = defaultdict(list)
        for path in images:
            for folder in path.parents:
                if folder.is_relative_to(root):
                    self._below[os.path.abspath(folder)].append(path)
        self._known = {*self._below, *self._lists, *self._images}
        base = read_yaml(document).get('path')
        base = PureWindowsPath(base if isinstance(base, str) else '').as_posix()
        self._bases = list(dict.fromkeys([document.parent / base, document.parent, root]))

    def images_of(
        self, stated: Mapping[str, Sequence[str]]
    ) -> tuple[dict[Path, set[str]], list[str]]:
        """The splits of each image that is named, and notes on what was not found."""
        splits: dict[Path, set[str]] = defaultdict(set)
        notes: list[str] = []
        for split, places in stated.items():
            for place in places:
                for path in self._images_at(place, split, notes):
                    splits[path].add(split)
        return splits, notes

    def _images_at(self, place: str, split: str, notes: list[str]) -> list[Path]:
        known = self._find(place, self._known, self._bases)
        if known is None:
            notes.append(
                f'{self._document.name} names {place[:80]} for {split}, which is neither a folder '
                'of images nor a list in the source: it was passed over.'
            )
            return []
        if known in self._lists:
            return self._read_list(self._lists[known], notes)
        return self._below[known] if known in self._below else [self._images[known]]

    def _read_list(self, path: Path, notes: list[str]) -> list[Path]:
        lines, bases = read_lines(path), [path.parent, *self._bases]
        found = {line: self._find(line, self._images, bases) for line in lines}
        missing = [line for line, known in found.items() if known is None]
        if missing:
            notes.append(
                f'{len(missing)} of {len(lines)} lines of {path.name} name no image of the '
                f'source, such as {missing[0][:80]}: they were passed over.'
            )
        return [self._images[known] for known in found.values() if known is not None]

    def _find(self, place: str, known: Container[str], bases: Sequence[Path]) -> str | None:
        """The known path that a place means; folders of another machine may stand before it."""
        named = PureWindowsPath(place)
        ends = ['/'.join(named.parts[start:]) for start in range(1, len(named.parts))]
        for end in [named.as_posix(), *ends]:
            for base in bases:
                path = os.path.abspath(base / end)
                if path in known:
                    return path
        return None
