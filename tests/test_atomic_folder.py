"""Folders that are there as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmdsym.atomic_folder import draft_of, drafted_folder, give_back, put_in_place

OWN = ('model', 'about.json')


def write(folder: Path, content: str) -> None:
    with drafted_folder(folder, OWN) as draft:
        (draft / 'model').mkdir()
        (draft / 'model/weights').write_text(content)
        (draft / 'about.json').write_text('{}')


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob('*')
        if path.is_file()
    }


def test_what_is_replaced_is_ours_and_what_is_not_stays(tmp_path):
    folder = tmp_path / 'made'
    write(folder, 'old')
    (folder / 'model/more').write_text('old')
    (folder / 'notes').mkdir()
    (folder / 'notes/mine.txt').write_text('mine')
    write(folder, 'new')
    assert contents(folder) == {
        'model/weights': 'new',
        'about.json': '{}',
        'notes/mine.txt': 'mine',
    }
    assert list(tmp_path.iterdir()) == [folder]


def test_a_block_that_fails_leaves_everything_as_it_was(tmp_path):
    folder = tmp_path / 'made'
    write(folder, 'old')
    before = contents(folder)
    with pytest.raises(RuntimeError), drafted_folder(folder, OWN) as draft:
        (draft / 'about.json').write_text('half')
        raise RuntimeError
    assert contents(folder) == before and list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize('renames', [0, 1, 2, 3])
def test_whoever_is_killed_between_renames_loses_nothing(tmp_path, monkeypatch, renames):
    """Of the earlier folder, of the new one, of somebody's notes."""
    folder = tmp_path / 'made'
    write(folder, 'old')
    (folder / 'notes.txt').write_text('mine')
    draft_of(folder).mkdir()
    (draft_of(folder) / 'about.json').write_text('new')
    replace, left = os.replace, [renames]

    class Killed(BaseException):
        pass

    def limited(source, target):
        if not left[0]:
            raise Killed
        left[0] -= 1
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', limited)
        try:
            put_in_place(folder, OWN)
        except Killed:
            assert renames < 3
    give_back(folder, OWN)
    found = contents(folder)
    assert found.pop('notes.txt') == 'mine'
    old = {'model/weights': 'old', 'about.json': '{}'}
    assert found == (old if renames < 2 else {'about.json': 'new'})
