"""The manifest of a cache: what belongs to it, and what became of its regions."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmdsym.errors import UserError

MANIFEST = 'manifest.json'
ANNOTATIONS = 'annotations.json'
# Far more than the longest file of a cache of a million images.
_LARGEST_JSON = 1 << 30
_DIGEST = re.compile(r'[0-9a-f]{64}')
# Nobody paints as much; numbers of thousands of digits are no counts.
_LARGEST_COUNT = 1 << 40
_COUNTS = ('regions', 'attempts', 'rejected', 'given_up')


def image_name(index: int) -> str:
    """Returns the name of an image, from number 0."""
    return f'{index:06d}.png'


def file_names(count: int) -> list[str]:
    """Returns all files of a cache of so many images, without the manifest."""
    return [ANNOTATIONS, *(f'images/{image_name(index)}' for index in range(count))]


def read_json(path: Path) -> object:
    """Reads a JSON file of unknown origin that belongs to a cache.

    Raises:
        ValueError: It is no plain file, or no JSON.
        OSError: It cannot be read.
    """
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_JSON:
        raise ValueError(f'{path} is no plain file of reasonable size')
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError(f'{path} is nested too deeply') from None


def read_manifest(path: Path) -> dict:
    """Reads a manifest and checks all that is used of it.

    It may come from anywhere: a manifest can only name the files that a cache of its number of
    images has, so that nothing outside of the folder is ever opened in its name.

    Raises:
        ValueError: It is not what :func:`seal` and the cache write.
        OSError: It cannot be read.
    """
    manifest = read_json(path)
    try:
        sound = _is_sound(manifest)
    except (KeyError, TypeError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise ValueError(f'{path} is no manifest of a cache')
    return manifest


def seal(manifest: Mapping) -> dict:
    """Returns a manifest with its own sha256."""
    return {**manifest, 'sha256': _digest_of(manifest)}


def read_manifests(root: str | Path) -> Iterator[tuple[Path, dict]]:
    """Yields the folder and manifest of each finished cache in ``root``, itself included.

    Raises:
        UserError: A manifest is damaged.
    """
    for path in manifest_files(root, itself=True):
        try:
            yield path.parent, read_manifest(path)
        except (OSError, ValueError):
            raise UserError(
                f'{path} is damaged: run tools/synthesize.py, which rebuilds the cache.'
            ) from None


def manifest_files(root: str | Path, itself: bool = False) -> list[Path]:
    """Returns the manifests of all finished caches in a folder, and of the folder itself."""
    below = [path for path in Path(root).glob(f'*/{MANIFEST}') if path.parent.name[0] != '.']
    return sorted([*(Path(root).glob(MANIFEST) if itself else ()), *below])


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


def _is_sound(manifest: dict) -> bool:
    files, count = manifest['files'], manifest['parts']['count']
    return (
        manifest['sha256'] == _digest_of(manifest)
        and _is_digest(manifest['key'])
        and isinstance(manifest['parts']['layout'], dict)
        and type(manifest['parts']['seed']) is int
        # Compared before names are made of it: the number may be anything.
        and is_count(count)
        and 0 < count == len(files) - 1
        and list(files) == file_names(count)
        and all(_is_digest(digest) for digest in files.values())
        and sorted(manifest['labelled']) in ([], ['ann_file', 'images'])
        and all(isinstance(value, str) for value in manifest['labelled'].values())
        and all(_is_outcome(counts) for counts in manifest['outcomes'].values())
    )


def _is_outcome(counts: dict) -> bool:
    return (
        sorted(counts) == sorted(_COUNTS)
        and all(is_count(value) for value in counts.values())
        and counts['given_up'] <= counts['regions']
        and counts['attempts'] == counts['rejected'] + counts['regions'] - counts['given_up']
        and counts['attempts'] > 0
    )


def is_count(value: object) -> bool:
    """Says whether a value is a whole number from 0 of reasonable size (and not ``True``)."""
    return type(value) is int and 0 <= value < _LARGEST_COUNT


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _digest_of(manifest: Mapping) -> str:
    """sha256 of a manifest without its own."""
    content = {name: value for name, value in manifest.items() if name != 'sha256'}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
