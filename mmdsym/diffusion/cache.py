"""A folder of synthetic images that knows what belongs to it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from mmdsym.errors import UserError

from .atomic_file import remove_drafts, write_file
from .cache_key import CacheKey
from .labelled_images import LabelledImages, is_grey
from .painting import SyntheticImage

_RECORD = 'mmdsym'


class SynthesisCache:
    """Images, their annotations and a manifest, in a folder named by the key.

    ``images/*.png`` each carry a record of what is on them and of the key, so that a cache that
    was interrupted can go on without any other file. ``annotations.json`` is a COCO file made
    from these records. ``manifest.json`` lists the sha256 of every file; it is written last, and
    a cache without it is not finished.

    Args:
        root: The folder with the caches of all keys.
        key: What determines this one.
        count: How many images it is to have.
    """

    def __init__(self, root: str | Path, key: CacheKey, count: int) -> None:
        self.folder = Path(root) / key.folder_name
        self.key = key
        self.count = count

    @property
    def annotation_file(self) -> Path:
        """The COCO file."""
        return self.folder / 'annotations.json'

    @property
    def manifest_file(self) -> Path:
        """The manifest."""
        return self.folder / 'manifest.json'

    @property
    def lock_file(self) -> Path:
        """The file to lock while the cache is looked at or made."""
        return self.folder.parent / f'.{self.folder.name}.lock'

    def faults(self) -> dict[str, str] | None:
        """Compares the files with the manifest.

        Returns:
            File name to what is wrong with it; empty for an intact cache; ``None`` where no cache
            was finished.
        """
        if not self.manifest_file.is_file():
            return None
        try:
            manifest = json.loads(self.manifest_file.read_bytes())
            files = dict(manifest['files'])
            intact = manifest['key'] == self.key.digest and manifest['sha256'] == _digest_of(
                manifest
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            intact = False
        if not intact:
            return {self.manifest_file.name: 'is damaged'}
        faults = {}
        for name, digest in files.items():
            fault = _compare(self.folder / name, digest)
            if fault:
                faults[name] = fault
        return faults

    def remove(self, names: Sequence[str]) -> None:
        """Removes damaged files of this cache, and the manifest, since it is finished no more."""
        for name in ('manifest.json', *names):
            (self.folder / name).unlink(missing_ok=True)

    def intact_images(self) -> dict[int, dict]:
        """Returns the records of the images that are there as a whole, by number.

        What a killed process left half-written is removed.
        """
        remove_drafts(self.folder)
        remove_drafts(self.folder / 'images')
        records = ((index, self._read_record(index)) for index in range(self.count))
        return {index: record for index, record in records if record is not None}

    def add(self, image: SyntheticImage) -> dict:
        """Writes an image, and returns its record.

        Raises:
            UserError: It cannot be written.
        """
        record = dict(
            key=self.key.digest,
            index=image.index,
            pixels=_digest_pixels(image.pixels),
            source=image.source,
            boxes=[asdict(box) for box in image.boxes],
            outcomes=[asdict(outcome) for outcome in image.outcomes],
        )
        # As they come back from the file.
        record = json.loads(json.dumps(record))
        write_file(self._image_file(image.index), _encode(image.pixels, record))
        return record

    def finish(self, records: Mapping[int, Mapping], labelled: LabelledImages) -> None:
        """Writes annotations and manifest.

        Args:
            records: Of all images, by number.
            labelled: What the images were made from.

        Raises:
            UserError: They cannot be written.
        """
        annotations = json.dumps(self._annotations(records, labelled), separators=(',', ':'))
        write_file(self.annotation_file, annotations.encode())
        names = [f'images/{self._image_file(index).name}' for index in range(self.count)]
        manifest = dict(
            key=self.key.digest,
            parts=dict(self.key.parts),
            labelled=labelled.origin,
            outcomes=count_outcomes(records.values(), labelled.classes),
            files={
                name: hashlib.sha256((self.folder / name).read_bytes()).hexdigest()
                for name in [self.annotation_file.name, *names]
            },
        )
        manifest['sha256'] = _digest_of(manifest)
        write_file(self.manifest_file, json.dumps(manifest, indent=1).encode())

    def manifest(self) -> dict:
        """Returns the manifest of a finished cache."""
        return json.loads(self.manifest_file.read_bytes())

    def nearest_sibling(self) -> tuple[Path, list[str]] | None:
        """Finds the finished cache of another key that has most in common with this one.

        Returns:
            Its folder and the parts of the key that differ; ``None`` where there is none.
        """
        siblings = []
        for path in sorted(self.folder.parent.glob('*/manifest.json')):
            try:
                parts = json.loads(path.read_bytes())['parts']
                differences = self.key.differences(parts)
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue
            if differences:
                siblings.append((len(differences), path.parent, differences))
        return min(siblings)[1:] if siblings else None

    def _image_file(self, index: int) -> Path:
        return self.folder / 'images' / f'{index:06d}.png'

    def _read_record(self, index: int) -> dict | None:
        """Returns an image's record if the file is, to the byte, what was written for this key."""
        try:
            content = self._image_file(index).read_bytes()
            with Image.open(io.BytesIO(content)) as image:
                record = json.loads(image.text[_RECORD])
                pixels = np.asarray(image.convert('RGB'))
            intact = (
                (record['key'], record['index']) == (self.key.digest, index)
                and record['pixels'] == _digest_pixels(pixels)
                and _encode(pixels, record) == content
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SyntaxError):
            return None
        return record if intact else None

    def _annotations(self, records: Mapping[int, Mapping], labelled: LabelledImages) -> dict:
        """Returns the COCO document. Image ids are the numbers plus 1."""
        images, annotations = [], []
        for index in range(self.count):
            source = labelled[records[index]['source']]
            images.append(
                dict(
                    id=index + 1,
                    file_name=self._image_file(index).name,
                    width=source.size[0],
                    height=source.size[1],
                    source=Path(source.path).name,
                )
            )
            for box in records[index]['boxes']:
                annotations.append(_coco_box(len(annotations) + 1, index + 1, box))
        categories = [dict(id=label + 1, name=name) for label, name in enumerate(labelled.classes)]
        return dict(categories=categories, images=images, annotations=annotations)


def count_outcomes(records: Sequence[Mapping], classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Counts per class how many regions were painted, rejected and given up.

    Returns:
        Class name to ``regions`` (asked for), ``attempts``, ``rejected`` (attempts) and
        ``given_up`` (regions). Classes of which nothing was asked for are absent.
    """
    counts: dict[str, dict[str, int]] = {}
    outcomes = [outcome for record in records for outcome in record['outcomes']]
    for label in sorted({outcome['label'] for outcome in outcomes}):
        own = [outcome for outcome in outcomes if outcome['label'] == label]
        rejected = sum(outcome['rejected'] for outcome in own)
        given_up = sum(outcome['given_up'] for outcome in own)
        counts[classes[label]] = dict(
            regions=len(own),
            attempts=rejected + len(own) - given_up,
            rejected=rejected,
            given_up=given_up,
        )
    return counts


def read_manifests(root: str | Path) -> Iterator[tuple[Path, dict]]:
    """Yields the folder and manifest of each finished cache in ``root``, itself included.

    Raises:
        UserError: A manifest is damaged.
    """
    for path in sorted([*Path(root).glob('manifest.json'), *Path(root).glob('*/manifest.json')]):
        try:
            manifest = json.loads(path.read_bytes())
            manifest['files'], manifest['parts'], manifest['labelled']
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f'{path} is damaged: run tools/synthesize.py, which rebuilds the cache.'
            ) from None
        yield path.parent, manifest


def _coco_box(identity: int, image: int, box: Mapping) -> dict:
    x1, y1, x2, y2 = box['box']
    return dict(
        id=identity,
        image_id=image,
        category_id=box['label'] + 1,
        bbox=[x1, y1, x2 - x1, y2 - y1],
        area=(x2 - x1) * (y2 - y1),
        iscrowd=int(box['ignored']),
        painted=box['painted'],
        size=box['size'],
    )


def _encode(pixels: np.ndarray, record: Mapping) -> bytes:
    """Returns a PNG, of one channel where the three are equal."""
    info = PngImagePlugin.PngInfo()
    info.add_text(_RECORD, json.dumps(record, separators=(',', ':')))
    stream = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if is_grey(pixels) else pixels))
    image.save(stream, 'PNG', pnginfo=info)
    return stream.getvalue()


def _digest_pixels(pixels: np.ndarray) -> str:
    shape = json.dumps(pixels.shape).encode()
    return hashlib.sha256(shape + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _digest_of(manifest: Mapping) -> str:
    """sha256 of a manifest without its own."""
    content = {name: value for name, value in manifest.items() if name != 'sha256'}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _compare(path: Path, digest: str) -> str | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return 'is missing'
    except OSError as error:
        return f'cannot be read ({error.strerror})'
    return None if hashlib.sha256(content).hexdigest() == digest else 'was changed or truncated'
