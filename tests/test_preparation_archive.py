"""A zip is unpacked below its folder, as a whole, and only when it is harmless."""

import contextlib
import stat
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mmdsym.datasets.preparation import archive
from mmdsym.datasets.preparation.archive import check_entries, extract, open_source
from mmdsym.errors import UserError


def make_zip(path: Path, entries: dict[str, bytes], **attributes) -> Path:
    with zipfile.ZipFile(path, 'w') as opened:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in attributes.items():
                setattr(info, key, value)
            opened.writestr(info, content)
    return path


def all_files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file()}


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / 'target'
    folder.mkdir()
    return folder


def test_contents_arrive_and_go_again(tmp_path):
    packed = make_zip(tmp_path / 'a.zip', {'x/one.txt': b'1', 'x/two.txt': b'2'})
    with open_source(packed, tmp_path / 'out') as folder:
        assert all_files(folder) == {'x/one.txt', 'x/two.txt'}
        assert (folder / 'x/two.txt').read_bytes() == b'2'
    assert not any((tmp_path / 'out').iterdir())


parts = st.sampled_from(['..', '.', '', 'a', 'b.txt', 'C:', '~', ' ', 'c d'])
paths = st.tuples(st.sampled_from(['', '/', '\\', '//']), st.lists(parts, min_size=1, max_size=5))


@given(paths, st.sampled_from(['/', '\\']))
@settings(max_examples=100, deadline=None)
def test_nothing_is_ever_written_outside(path, slash):
    name = path[0] + slash.join(path[1])
    assume(name)
    with tempfile.TemporaryDirectory() as base:
        inner = Path(base) / 'deep' / 'er' / 'inner'
        inner.mkdir(parents=True)
        with contextlib.suppress(UserError):
            extract(make_zip(Path(base) / 'a.zip', {name: b'evil'}), inner)
        outside = {f for f in all_files(Path(base)) if not f.startswith('deep/er/inner/')}
        assert outside == {'a.zip'}


@pytest.mark.parametrize(
    'name, fault',
    [
        ('../evil.txt', 'leaves the folder'),
        ('a/../../evil.txt', 'leaves the folder'),
        ('a\\..\\..\\evil.txt', 'leaves the folder'),
        ('/etc/evil.txt', 'absolute path'),
        ('C:\\evil.txt', 'absolute path'),
    ],
)
def test_unsafe_path_is_named_and_nothing_is_unpacked(tmp_path, target, name, fault):
    packed = make_zip(tmp_path / 'a.zip', {'good.txt': b'', name: b'evil'})
    with pytest.raises(UserError, match=fault):
        extract(packed, target)
    assert not all_files(target)


def test_links_are_refused(tmp_path, target):
    mode = (stat.S_IFLNK | 0o777) << 16
    packed = make_zip(
        tmp_path / 'a.zip', {'link': b'/etc/passwd'}, create_system=3, external_attr=mode
    )
    with pytest.raises(UserError, match='is a link'):
        extract(packed, target)
    assert not any(target.iterdir())


def test_bomb_is_refused_before_anything_is_written(tmp_path, target, monkeypatch):
    monkeypatch.setattr(archive, 'RATIO_COUNTS_FROM', 2**20)
    packed = make_zip(tmp_path / 'a.zip', {'zeros.bmp': bytes(2**22)})
    with pytest.raises(UserError, match='zip bomb.*unpack it yourself'):
        extract(packed, target)
    assert not all_files(target)


def test_size_limit_and_free_space():
    entry = zipfile.ZipInfo('a.bmp')
    entry.file_size, entry.compress_size = 2**30, 2**29
    check_entries(Path('a.zip'), [entry], free_bytes=2**31)
    with pytest.raises(UserError, match='are free'):
        check_entries(Path('a.zip'), [entry], free_bytes=2**29)
    entry.file_size = entry.compress_size = archive.MAX_BYTES + 1
    with pytest.raises(UserError, match='zip bomb'):
        check_entries(Path('a.zip'), [entry], free_bytes=2**60)


def test_damaged_zip(tmp_path, target):
    packed = make_zip(tmp_path / 'a.zip', {'a.txt': bytes(range(256)) * 20})
    content = bytearray(packed.read_bytes())
    content[60:90] = b'\0' * 30
    packed.write_bytes(content)
    with pytest.raises(UserError, match='cannot be unpacked'):
        extract(packed, target)


def test_two_entries_of_one_name_are_refused(tmp_path, target):
    packed = tmp_path / 'a.zip'
    with zipfile.ZipFile(packed, 'w') as opened:
        opened.writestr('a/b.txt', b'1')
        # The same file, once it is unpacked.
        opened.writestr('a//./b.txt', b'2')
    with pytest.raises(UserError, match=r"entry 'a//./b.txt' is there twice"):
        extract(packed, target)
    assert not all_files(target)


def test_more_entries_than_a_data_set_has_are_refused(tmp_path, target, monkeypatch):
    monkeypatch.setattr(archive, 'MAX_ENTRIES', 3)
    packed = make_zip(tmp_path / 'a.zip', {f'{i}.txt': b'' for i in range(4)})
    with pytest.raises(UserError, match='holds 4 files, more than 3') as told:
        extract(packed, target)
    assert not all_files(target) and '\n' not in str(told.value)


def test_entries_that_share_their_packed_bytes_are_a_bomb(tmp_path):
    packed = tmp_path / 'a.zip'
    packed.write_bytes(bytes(2**20))
    entries = [zipfile.ZipInfo(f'{i}.bmp') for i in range(300)]
    for entry in entries:
        entry.file_size, entry.compress_size = 2**20, 2**20
    with pytest.raises(UserError, match='zip bomb'):
        check_entries(packed, entries, free_bytes=2**60)


@pytest.mark.parametrize('name, message', [('nothing', 'does not exist'), ('a.txt', 'neither')])
def test_no_source(tmp_path, name, message):
    (tmp_path / 'a.txt').write_text('no zip')
    with pytest.raises(UserError, match=message), open_source(tmp_path / name, tmp_path):
        pass
