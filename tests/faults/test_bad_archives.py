"""Zips that lie, explode or lead astray: one sentence, and nothing outside the target folder."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from preparation_data import make_voc
from test_preparation_refusals import call, main  # noqa: F401  (fixtures)


def entries(**changes) -> Callable[[Path], bytes]:
    """A zip of sound data with one more entry, some attributes of which are changed."""

    def make(source: Path) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, 'w') as opened:
            for path in sorted(source.rglob('*')):
                opened.write(path, path.relative_to(source))
            info = zipfile.ZipInfo('more.txt')
            info.create_system = 3
            for key, value in changes.items():
                setattr(info, key, value)
            opened.writestr(info, b'0123456789')
        return stream.getvalue()

    return make


def patched(change: Callable[[bytearray], None]) -> Callable[[Path], bytes]:
    def make(source: Path) -> bytes:
        content = bytearray(entries()(source))
        change(content)
        return bytes(content)

    return make


def claim_size(content: bytearray) -> None:
    """Says in the table of contents that the last entry is 5 bytes long; it has 10."""
    at = content.rindex(b'PK\x01\x02')
    content[at + 24 : at + 28] = struct.pack('<I', 5)


def claim_gibibytes(content: bytearray) -> None:
    at = content.rindex(b'PK\x01\x02')
    content[at + 24 : at + 28] = struct.pack('<I', 2**31)


def break_checksum(content: bytearray) -> None:
    at = content.rindex(b'0123456789')
    content[at] ^= 1


def unknown_method(content: bytearray) -> None:
    at = content.rindex(b'PK\x01\x02')
    content[at + 10 : at + 12] = struct.pack('<H', 77)


def damaged_lzma(content: bytearray) -> None:
    for mark, offset in ((b'PK\x01\x02', 10), (b'PK\x03\x04', 8)):
        at = content.rindex(mark)
        content[at + offset : at + offset + 2] = struct.pack('<H', 14)


def name_that_is_no_utf8(content: bytearray) -> None:
    at = content.rindex(b'PK\x01\x02')
    # The flag says that the name is UTF-8.
    content[at + 8 : at + 10] = struct.pack('<H', 0x800)
    content[at + 46] = 0xFF


def cut_short(content: bytearray) -> None:
    del content[len(content) // 2 : -100]


CASES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    'up and away': (entries(filename='../more.txt'), 'leaves the folder with ..'),
    'far up': (entries(filename='a/../../../../more.txt'), 'leaves the folder with ..'),
    'backslashes': (entries(filename='..\\..\\more.txt'), 'leaves the folder with ..'),
    'absolute': (entries(filename='/tmp/more.txt'), 'has an absolute path'),
    'drive': (entries(filename='C:\\more.txt'), 'has an absolute path'),
    'link': (entries(external_attr=(stat.S_IFLNK | 0o777) << 16), 'is a link'),
    'pipe': (entries(external_attr=(stat.S_IFIFO | 0o777) << 16), 'is no ordinary file'),
    'device': (entries(external_attr=(stat.S_IFBLK | 0o777) << 16), 'is no ordinary file'),
    'file for a folder': (entries(filename='JPEGImages'), 'cannot be unpacked'),
    'a name too long': (entries(filename='x' * 5000), 'cannot be unpacked'),
    'less than it holds': (patched(claim_size), 'cannot be unpacked'),
    'two gibibytes of ten bytes': (patched(claim_gibibytes), ''),
    'wrong checksum': (patched(break_checksum), 'cannot be unpacked'),
    'unknown compression': (patched(unknown_method), 'cannot be unpacked'),
    'damaged lzma': (patched(damaged_lzma), 'cannot be unpacked'),
    'a name that is no UTF-8': (patched(name_that_is_no_utf8), 'cannot be unpacked'),
    'cut': (patched(cut_short), ''),
    'a tar': (lambda source: b'ustar' * 200, 'is a single file: give the folder'),
    'empty': (lambda source: b'', 'is a single file: give the folder'),
    'an empty zip': (lambda source: b'PK\x05\x06' + bytes(18), 'has no layout'),
}


@pytest.mark.parametrize('case', CASES)
def test_a_zip_at_fault_is_told_and_leaves_nothing(call, tmp_path, case):  # noqa: F811
    make, message = CASES[case]
    packed = tmp_path / 'parts.zip'
    packed.write_bytes(make(make_voc(tmp_path / 'source')))
    before = {path for path in tmp_path.rglob('*') if 'out' not in path.parts}
    status, _, error = call(source=packed)
    assert status == 2
    last = error.rstrip().split('\n')[-1]
    assert last.startswith('error: ') and message in last
    assert not list(tmp_path.glob('out/*'))
    assert {p for p in tmp_path.rglob('*') if p.relative_to(tmp_path).parts[0] != 'out'} == before
    assert not Path('/tmp/more.txt').exists()
