"""Digests of what files hold, whatever they are called and wherever they lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

from mmdsym.errors import UserError
from mmdsym.trained_run import dataset_for_testing

_COCO = ('categories', 'images', 'annotations')


def digest_of_test_set(cfg: Config) -> str:
    """Returns the digest of the annotations that a config is tested on.

    Raises:
        UserError: There are none, or they cannot be read.
    """
    dataset = dataset_for_testing(cfg)
    path = Path(dataset.get('data_root') or '') / dataset['ann_file']
    return Contents(read_images=False).annotations(path)


class Contents:
    """Digests files; what was read once is not read again by the same object.

    Args:
        read_images: Whether the pixels of images count, or the size of their files alone, which
            is enough to notice exchanged images and needs no reading of all unlabelled ones.
    """

    def __init__(self, read_images: bool = True) -> None:
        self.read_images = read_images
        self._known: dict[tuple, str] = {}

    def of(self, path: Path) -> str:
        """Returns the digest of a file, or of all files below a folder with their names."""
        if path.is_dir():
            files = sorted(file for file in path.rglob('*') if file.is_file())
            parts = [[file.relative_to(path).as_posix(), self.of(file)] for file in files]
            return _digest(json.dumps(parts).encode())
        return self._remember(('file', path), lambda: _digest(_read(path)))

    def annotations(self, path: Path) -> str:
        """Returns the digest of a COCO json: of its classes, images and boxes, not of its spaces.

        Raises:
            UserError: The file cannot be read.
        """
        return self._remember(('annotations', path), lambda: _digest_annotations(path))

    def images(self, annotations: Path, folder: Path) -> str:
        """Returns the digest of the images that a COCO json lists, in its order.

        Raises:
            UserError: One of them cannot be read.
        """
        place = ('images', annotations, folder)
        return self._remember(place, lambda: _digest('\n'.join(self._each(*place[1:])).encode()))

    def _each(self, annotations: Path, folder: Path) -> Iterator[str]:
        for name in _image_names(annotations):
            path = folder / name
            yield f'{name} {self.of(path) if self.read_images else _size(path)}'

    def _remember(self, what: tuple, compute) -> str:
        if what not in self._known:
            self._known[what] = compute()
        return self._known[what]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest_annotations(path: Path) -> str:
    content = _read(path)
    try:
        document = json.loads(content)
        known = {name: document[name] for name in _COCO if name in document}
    except (ValueError, TypeError):
        return _digest(content)
    return _digest(json.dumps(known or document, sort_keys=True).encode())


def _image_names(path: Path) -> list[str]:
    try:
        return [image['file_name'] for image in json.loads(_read(path))['images']]
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f'{path} is not a COCO annotation file: make it anew with tools/prepare_dataset.py.'
        ) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(
        f'{path} cannot be read ({error.strerror}): restore the file, or prepare the data again '
        'with tools/prepare_dataset.py.'
    )
