"""A folder of synthetic images that knows what belongs to it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmdsym.atomic_file import remove_drafts, write_file
from mmdsym.atomic_folder import draft_of, give_back, put_in_place
from mmdsym.errors import UserError

from .cache_annotations import make_annotations, read_annotations
from .cache_key import CacheKey
from .cache_manifest import (
    ANNOTATIONS,
    MANIFEST,
    count_outcomes,
    file_names,
    image_name,
    manifest_files,
    read_manifest,
    seal,
)
from .cache_record import encode, make_record, read_record
from .labelled_images import LabelledImages
from .layout import ImageLayout
from .painting import SyntheticImage

_OWN = (MANIFEST, ANNOTATIONS, 'images')


class SynthesisCache:
    """Images, their annotations and a manifest, in a folder named by the key.

    The folder is there as a whole or not at all: it is made in a hidden sibling, the draft, which
    keeps what is finished when the process is killed. ``images/*.png`` each carry a record of what
    is on them and of the key, so that a draft can go on without any other file.
    ``annotations.json`` is a COCO file made from these records. ``manifest.json`` lists the sha256
    of every file.

    Args:
        root: The folder with the caches of all keys.
        key: What determines this one.
        count: How many images it is to have.
    """

    def __init__(self, root: str | Path, key: CacheKey, count: int) -> None:
        self.folder = Path(root) / key.folder_name
        self.draft = draft_of(self.folder)
        self.key = key
        self.count = count

    @property
    def annotation_file(self) -> Path:
        """The COCO file."""
        return self.folder / ANNOTATIONS

    @property
    def manifest_file(self) -> Path:
        """The manifest."""
        return self.folder / MANIFEST

    @property
    def lock_file(self) -> Path:
        """The file to lock while the cache is looked at or made."""
        return self.folder.parent / f'.{self.folder.name}.lock'

    def clear_up(self) -> None:
        """Undoes what a killed process left half done, but for the finished images of the draft.

        Raises:
            UserError: The folder cannot be written.
        """
        try:
            give_back(self.folder, _OWN)
            # Whoever put a link here: nothing is written to where it leads.
            for path in (self.draft, self.draft / 'images'):
                if path.is_symlink():
                    path.unlink()
                remove_drafts(path)
        except OSError as error:
            raise _cannot_write(self.folder, error) from error

    def faults(self) -> dict[str, str] | None:
        """Compares the files with the manifest.

        Returns:
            File name to what is wrong with it; empty for an intact cache; ``None`` where no cache
            was finished.
        """
        if not os.path.lexists(self.manifest_file):
            return None
        try:
            manifest = self.manifest()
            intact = manifest['key'] == self.key.digest and len(manifest['files']) == self.count + 1
        except (OSError, ValueError):
            intact = False
        if not intact:
            return {MANIFEST: 'is damaged'}
        if (self.folder / 'images').is_symlink():
            return {'images': 'is a link'}
        compared = {
            name: _compare(self.folder / name, digest) for name, digest in manifest['files'].items()
        }
        faults = {name: fault for name, fault in compared.items() if fault}
        return faults or self._faults_of_annotations()

    def _faults_of_annotations(self) -> dict[str, str]:
        try:
            if len(read_annotations(self.folder)['images']) == self.count:
                return {}
        except (OSError, ValueError):
            pass
        return {ANNOTATIONS: 'is damaged'}

    def intact_images(
        self, layouts: Sequence[ImageLayout], labelled: LabelledImages
    ) -> dict[int, dict]:
        """Returns the records of the images that are there as a whole, by number.

        What is intact of a damaged cache of this key becomes part of the draft.

        Args:
            layouts: Of all images.
            labelled: What the images are made from.

        Raises:
            UserError: They cannot be written.
        """
        records = {}
        for layout in layouts:
            name = f'images/{image_name(layout.index)}'
            for folder in (self.draft, self.folder):
                if (folder / 'images').is_symlink():
                    continue
                found = read_record(folder / name, self.key.digest, layout, labelled)
                if found is not None:
                    records[layout.index], content = found
                    if folder != self.draft:
                        write_file(self.draft / name, content)
                    break
        return records

    def images_begun(self) -> int:
        """Counts the images of a draft without opening them."""
        return len(list(self.draft.glob('images/*.png')))

    def add(self, image: SyntheticImage) -> dict:
        """Writes an image into the draft, and returns its record.

        Raises:
            UserError: It cannot be written.
        """
        record = make_record(self.key.digest, image)
        path = self.draft / 'images' / image_name(image.index)
        write_file(path, encode(image.pixels, record))
        return record

    def finish(self, records: Mapping[int, Mapping], labelled: LabelledImages) -> None:
        """Writes annotations and manifest, and gives the draft its name.

        Args:
            records: Of all images, by number.
            labelled: What the images were made from.

        Raises:
            UserError: They cannot be written.
        """
        annotations = json.dumps(make_annotations(records, labelled), separators=(',', ':'))
        write_file(self.draft / ANNOTATIONS, annotations.encode())
        manifest = dict(
            key=self.key.digest,
            parts=dict(self.key.parts),
            labelled=labelled.origin,
            outcomes=count_outcomes(records.values(), labelled.classes),
            files={
                name: hashlib.sha256((self.draft / name).read_bytes()).hexdigest()
                for name in file_names(self.count)
            },
        )
        write_file(self.draft / MANIFEST, json.dumps(seal(manifest), indent=1).encode())
        try:
            self._keep_foreign_files()
            put_in_place(self.folder, _OWN)
        except OSError as error:
            raise _cannot_write(self.folder, error) from error

    def manifest(self) -> dict:
        """Returns the manifest of a finished cache.

        Raises:
            ValueError: It is damaged.
            OSError: It cannot be read.
        """
        return read_manifest(self.manifest_file)

    def nearest_sibling(self) -> tuple[Path, list[str]] | None:
        """Finds the finished cache of another key that has most in common with this one.

        Returns:
            Its folder and the parts of the key that differ; ``None`` where there is none.
        """
        siblings = []
        for path in manifest_files(self.folder.parent):
            try:
                differences = self.key.differences(read_manifest(path)['parts'])
            except (OSError, ValueError):
                continue
            if differences:
                siblings.append((len(differences), path.parent, differences))
        return min(siblings)[1:] if siblings else None

    def _keep_foreign_files(self) -> None:
        """Moves what others put among a damaged cache's images to those that take their place."""
        folder = self.folder / 'images'
        if folder.is_symlink() or not folder.is_dir():
            return
        own = set(file_names(self.count))
        for path in list(folder.iterdir()):
            name = f'images/{path.name}'
            if name not in own and not path.name.startswith('.') and not path.is_symlink():
                os.replace(path, self.draft / name)


def _compare(path: Path, digest: str) -> str | None:
    try:
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode):
            return 'is a link' if stat.S_ISLNK(mode) else 'is no file'
        content = path.read_bytes()
    except FileNotFoundError:
        return 'is missing'
    except OSError as error:
        return f'cannot be read ({error.strerror})'
    return None if hashlib.sha256(content).hexdigest() == digest else 'was changed or truncated'


def _cannot_write(folder: Path, error: OSError) -> UserError:
    return UserError(
        f'{folder} cannot be written ({error.strerror or error}): make its folder writable, or '
        'name another cache_dir.'
    )
