"""Opening a source that is a folder or a zip, without trusting the zip."""

from __future__ import annotations

import lzma
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from tqdm import tqdm

from mmdsym.atomic_file import FULL_DISK
from mmdsym.datasets.preparation.leavings import scratch_folder
from mmdsym.errors import UserError

MAX_BYTES = 64 * 2**30
"""Most bytes that a zip may unpack to."""

MAX_RATIO = 200
"""Most times its own size that a zip may unpack to, once that exceeds `RATIO_COUNTS_FROM`."""

RATIO_COUNTS_FROM = 2**28

MAX_ENTRIES = 1_000_000
"""Most files that a zip may hold; each costs memory and an entry of the disk's table."""

CHUNK = 2**20
UNPACKING_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    LookupError,
    # Among them names that are not in the encoding that they claim, or hold a zero byte.
    ValueError,
    NotImplementedError,
    OSError,
    RuntimeError,
)


@contextmanager
def open_source(path: Path, scratch: Path) -> Iterator[Path]:
    """Yields the folder to read: the source itself, or what its zip unpacks to.

    Args:
        path: A folder or a zip.
        scratch: Folder below which a zip is unpacked for the time of the context.

    Raises:
        UserError: When there is nothing of that name, or the zip is damaged or unsafe.
    """
    if path.is_dir():
        yield path
    elif path.is_file() and zipfile.is_zipfile(path):
        with scratch_folder(scratch, '.unpacked') as folder:
            extract(path, folder)
            yield folder
    elif path.exists():
        raise UserError(
            f'{path} is a single file: give the folder that holds it and the images, or a zip of it'
        )
    else:
        raise UserError(f'{path} does not exist; give the folder or zip that holds the data')


def extract(archive: Path, folder: Path) -> None:
    """Unpacks a zip below a folder and nowhere else.

    Raises:
        UserError: When an entry would leave the folder, is a link or encrypted, when the content
            is damaged, or when it is larger than the limits, the free space or its own claim.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.filename.endswith('/')]
            check_entries(archive, entries, shutil.disk_usage(folder).free)
            for entry in tqdm(entries, desc='unpacking', unit='file', disable=None):
                _extract_entry(opened, entry, folder)
    except UserError:
        raise
    except UNPACKING_ERRORS as error:
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            raise UserError(
                f'no space is left to unpack {archive} below {folder.parent}; make room or choose '
                'another --out'
            ) from error
        raise UserError(f'{archive} cannot be unpacked ({error}); get it anew') from error


def check_entries(archive: Path, entries: Sequence[zipfile.ZipInfo], free_bytes: int) -> None:
    """Refuses a zip by its table of contents.

    Raises:
        UserError: When it is unsafe or too large.
    """
    if len(entries) > MAX_ENTRIES:
        raise UserError(
            f'{archive} holds {len(entries):,} files, more than {MAX_ENTRIES:,}; if that is meant, '
            'unpack it yourself and give the folder'
        )
    known: set[str] = set()
    for entry in entries:
        fault = _fault(entry) or _collision(entry, known)
        if fault:
            raise UserError(
                f'{archive} is not safe to unpack: entry {entry.filename!r} {fault}; '
                'pack the data again'
            )
    total = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    if archive.is_file():
        # Entries may share their packed bytes, which then are not there as often as they count.
        packed = min(packed, archive.stat().st_size)
    packed = max(1, packed)
    if total > MAX_BYTES or (total > RATIO_COUNTS_FROM and total > MAX_RATIO * packed):
        raise UserError(
            f'{archive} would unpack to {total / 2**30:.1f} GiB from {packed / 2**20:.1f} MiB, '
            'which looks like a zip bomb; if it is not, unpack it yourself and give the folder'
        )
    if total > free_bytes:
        raise UserError(
            f'{archive} unpacks to {total / 2**30:.1f} GiB but only {free_bytes / 2**30:.1f} GiB '
            'are free; make room or choose another --out'
        )


def _fault(entry: zipfile.ZipInfo) -> str:
    """Why an entry is unsafe; empty when it is not."""
    windows, posix = PureWindowsPath(entry.filename), PurePosixPath(entry.filename)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if windows.drive or windows.root or posix.is_absolute():
        return 'has an absolute path'
    if '..' in windows.parts:
        return 'leaves the folder with ..'
    if kind == stat.S_IFLNK:
        return 'is a link'
    if kind not in (0, stat.S_IFREG):
        return 'is no ordinary file'
    if entry.flag_bits & 1:
        return 'is encrypted'
    return ''


def _collision(entry: zipfile.ZipInfo, known: set[str]) -> str:
    """Why an entry would replace another one; notes its name as known."""
    name = '/'.join(PureWindowsPath(entry.filename).parts)
    if name in known:
        return 'is there twice'
    known.add(name)
    return ''


def _extract_entry(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    target = folder.joinpath(*PureWindowsPath(entry.filename).parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    # 'x': what lies there already must not silently be replaced.
    with opened.open(entry) as packed, target.open('xb') as unpacked:
        while chunk := packed.read(CHUNK):
            written += len(chunk)
            if written > entry.file_size:
                raise zipfile.BadZipFile(f'{entry.filename} is larger than the zip says')
            unpacked.write(chunk)
