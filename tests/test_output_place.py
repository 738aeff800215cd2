"""Results that could not be written are refused before the work."""

import os

import pytest

from mmdsym.errors import UserError
from mmdsym.output_place import require_place, require_writable


def test_a_new_file_in_folders_to_come_is_fine(tmp_path):
    require_place(tmp_path / 'a' / 'b' / 'report.json')
    assert not list(tmp_path.iterdir())


def test_a_file_is_replaced_only_if_told(tmp_path):
    path = tmp_path / 'report.json'
    path.write_text('earlier')
    with pytest.raises(UserError, match='report.json.*exists; add --force'):
        require_place(path)
    require_place(path, force=True)
    assert path.read_text() == 'earlier'


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    for place in ('file/report.json', 'file/deeper/report.json'):
        with pytest.raises(UserError, match="file' is a file"):
            require_place(tmp_path / place)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(UserError, match='is a folder: name a file'):
        require_place(tmp_path, force=True)


def test_a_folder_that_we_may_not_write_into_is_named(tmp_path, monkeypatch):
    # Root may write anywhere, so that permissions alone would not tell.
    monkeypatch.setattr(os, 'access', lambda path, mode: False)
    with pytest.raises(UserError, match='nothing may be written into'):
        require_writable(tmp_path / 'missing')
