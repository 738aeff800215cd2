"""kill -9 during dataset preparation and synthesis; then the same command makes the same files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from conftest import REPOSITORY
from preparation_data import make_voc
from tools_in_processes import run_tool

COPY, MOVE = 'shutil:copyfile', 'os:replace'

SYNC = 'mmdsym.atomic_file:sync'

SYNTHESIS = """
_base_ = '{configs}/baselines/supervised_synthetic_neu_40pct.py'
data_root = '{data}/'
image_size = (64, 64)
train_dataloader = dict(
    dataset=dict(
        sources=dict(
            synthetic=dict(
                synthesiser=dict(_delete_=True, type='mmdsym.CopyPasteSynthesiser'),
                accept=None,
                count=6,
                batch_size=1,
                cache_dir='{cache}',
            )
        )
    )
)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


@pytest.fixture(scope='module')
def source(tmp_path_factory) -> Path:
    return make_voc(tmp_path_factory.mktemp('source') / 'parts')


@pytest.fixture(scope='module')
def prepared(source, tmp_path_factory) -> dict[str, bytes]:
    """The files that an uninterrupted preparation writes."""
    out = tmp_path_factory.mktemp('whole')
    assert run_tool('prepare_dataset.py', source, '--name', 'x', '--out', out).returncode == 0
    return contents(out)


@pytest.mark.parametrize('place', [(COPY, 1), (COPY, 7), (MOVE, 1)], ids=str)
def test_a_killed_preparation_leaves_no_data_set(source, prepared, tmp_path, place):
    call = ('prepare_dataset.py', source, '--name', 'x', '--out', tmp_path)
    run_tool(*call, kill_at=place)
    assert not (tmp_path / 'x').exists() and list(tmp_path.glob('.x.partial-*'))
    assert run_tool(*call).returncode == 0
    assert contents(tmp_path) == prepared


@pytest.mark.parametrize('place', [(COPY, 7), (MOVE, 1), (MOVE, 2)], ids=str)
def test_a_killed_replacement_loses_no_data_set(source, prepared, tmp_path, place):
    call = ('prepare_dataset.py', source, '--name', 'x', '--out', tmp_path, '--force')
    assert run_tool(*call, '--seeds', '7').returncode == 0
    before = contents(tmp_path / 'x')
    run_tool(*call, kill_at=place)
    left = tmp_path / 'x'
    # Between two moves the old one lies beside its place.
    aside = list(tmp_path.glob('.x.replaced-*'))
    assert contents(aside[0] if aside else left) == before
    assert bool(aside) == (place == (MOVE, 2))
    assert run_tool(*call, '--seeds', '7').returncode == 0
    assert contents(tmp_path) == {f'x/{name}': content for name, content in before.items()}
    assert run_tool(*call).returncode == 0
    assert contents(tmp_path) == prepared


def test_a_killed_unpacking_leaves_nothing_that_stays(source, prepared, tmp_path):
    packed, out = tmp_path / 'parts.zip', tmp_path / 'out'
    with zipfile.ZipFile(packed, 'w') as opened:
        for name, content in contents(source).items():
            opened.writestr(name, content)
    call = ('prepare_dataset.py', packed, '--name', 'x', '--out', out)
    run_tool(*call, kill_at=(COPY, 3))
    assert list(out.glob('.unpacked-*')) and not (out / 'x').exists()
    assert run_tool(*call).returncode == 0
    assert [path.name for path in out.iterdir()] == ['x']
    files = contents(out)
    assert {k: v for k, v in files.items() if 'card' not in k} == {
        k: v for k, v in prepared.items() if 'card' not in k
    }


@pytest.fixture(scope='module')
def synthesised(tiny_data, tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp('synthesised')
    done = run_tool('synthesize.py', write_synthesis(folder, tiny_data))
    assert done.returncode == 0, done.stderr
    return cache_contents(folder)


def write_synthesis(folder: Path, data: Path) -> Path:
    text = SYNTHESIS
    values = dict(configs=REPOSITORY / 'configs', data=data, cache=folder / 'cache')
    for key, value in values.items():
        text = text.replace(f'{{{key}}}', str(value))
    (folder / 'synthesis.py').write_text(text)
    return folder / 'synthesis.py'


def cache_contents(folder: Path) -> dict[str, bytes]:
    return {n: c for n, c in contents(folder / 'cache').items() if not n.endswith('.lock')}


def test_a_killed_synthesis_goes_on_to_the_same_cache(tiny_data, synthesised, tmp_path):
    config = write_synthesis(tmp_path, tiny_data)
    # Before the fourth image gets its name, then before the manifest, the eighth file, gets it.
    run_tool('synthesize.py', config, kill_at=(SYNC, 4))
    there = cache_contents(tmp_path)
    assert sum(name.endswith('.png') for name in there) == 3
    assert sum(name.endswith('.unfinished') for name in there) == 1
    run_tool('synthesize.py', config, kill_at=(SYNC, 5))
    assert not any(name.endswith('manifest.json') for name in cache_contents(tmp_path))
    done = run_tool('synthesize.py', config)
    assert 'nothing was painted' in done.stdout, done.stderr
    assert cache_contents(tmp_path) == synthesised
