"""A cache of synthetic images that somebody else made up opens nothing outside of its folder."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from synthesis_data import COUNT, Stamp, contents, synthesis

from mmdsym.atomic_folder import draft_of
from mmdsym.diffusion import cache_manifest
from mmdsym.diffusion.cache_manifest import read_manifest, read_manifests, seal
from mmdsym.diffusion.cache_record import encode
from mmdsym.diffusion.synthesis_quality import read_painted_crops
from mmdsym.diffusion.synthesis_sheet import draw_synthetic_regions
from mmdsym.errors import UserError


@pytest.fixture
def made(labelled, tmp_path) -> Path:
    return synthesis(labelled).make_or_find(tmp_path / 'caches').folder


@pytest.fixture
def outside(tmp_path) -> Path:
    folder = tmp_path / 'outside'
    folder.mkdir()
    (folder / 'secret.png').write_bytes(b'not yours')
    return folder


def change(path: Path, edit) -> None:
    """Edits a JSON file; a manifest gets the sha256 that belongs to what it says then."""
    content = json.loads(path.read_text())
    content = edit(content) or content
    path.write_text(json.dumps(seal(content) if path.name == 'manifest.json' else content))


def with_files(names):
    def edit(manifest):
        digest = next(iter(manifest['files'].values()))
        manifest['files'] = {
            **dict(list(manifest['files'].items())[: -len(names)]),
            **{name: digest for name in names},
        }

    return edit


def setting(*keys, value):
    def edit(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return edit


MANIFESTS = {
    'absolute': lambda m: with_files(['/tmp/x.png'])(m),
    'upwards': lambda m: with_files(['images/../../../outside/secret.png'])(m),
    'files are a list': lambda m: m.update(files=list(m['files'])),
    'digest is a number': lambda m: m['files'].update({'annotations.json': 7}),
    'huge count': setting('parts', 'count', value=10**18),
    'count is true': setting('parts', 'count', value=True),
    'parts are text': setting('parts', value='count'),
    'no layout': setting('parts', 'layout', value=[1]),
    'origin is a number': setting('labelled', 'images', value=3),
    'outcomes are a list': setting('outcomes', value=[1]),
    'nothing attempted': setting(
        'outcomes', 'dent', value=dict(regions=0, attempts=0, rejected=0, given_up=0)
    ),
    'huge outcome': setting(
        'outcomes',
        'dent',
        value=dict(regions=10**400, attempts=10**400, rejected=0, given_up=0),
    ),
}


@pytest.mark.parametrize('name', MANIFESTS)
def test_a_forged_manifest_is_named_and_opens_nothing(
    labelled,
    tmp_path,
    made,
    outside,
    log,
    name,
):
    before = contents(made)
    change(made / 'manifest.json', MANIFESTS[name])
    with pytest.raises(UserError, match=r'manifest.json is damaged: run tools/synthesize.py'):
        list(read_manifests(tmp_path / 'caches'))
    report = synthesis(labelled).make_or_find(tmp_path / 'caches')
    assert any('(manifest.json is damaged)' in message for message in log.messages)
    assert contents(report.folder) == before
    assert contents(outside) == {'secret.png': b'not yours'}


@pytest.mark.parametrize('text', ['[' * 100_000, '[]', '"x"', 'null', '{"files": {}}', ''])
def test_a_manifest_that_is_something_else_is_named(labelled, tmp_path, made, log, text):
    (made / 'manifest.json').write_text(text)
    with pytest.raises(UserError, match='is damaged'):
        list(read_manifests(made))
    # As a sibling of another key it is passed over.
    synthesis(labelled, seed=1).make_or_find(tmp_path / 'caches')
    synthesis(labelled).make_or_find(tmp_path / 'caches')
    assert any('(manifest.json is damaged)' in message for message in log.messages)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=60)
@given(st.data())
def test_whatever_a_manifest_says_it_is_sound_or_refused(data):
    digest = '0' * 64
    sound = dict(
        key=digest,
        parts=dict(count=1, seed=0, layout={}),
        labelled={},
        outcomes=dict(dent=dict(regions=1, attempts=1, rejected=0, given_up=0)),
        files={name: digest for name in cache_manifest.file_names(1)},
    )
    key = data.draw(st.sampled_from(sorted(sound)))
    value = data.draw(JSON)
    if data.draw(st.booleans()) and isinstance(sound[key], dict):
        below = data.draw(st.sampled_from(sorted(sound[key]) or ['x']))
        sound[key] = {**sound[key], below: value}
    else:
        sound[key] = value
    try:
        manifest = seal(sound)
    except ValueError:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_manifest, 'read_json', lambda _: manifest)
        try:
            read_manifest(Path('manifest.json'))
        except ValueError:
            return
    assert list(manifest['files']) == ['annotations.json', 'images/000000.png']
    assert all(type(v) is int for counts in manifest['outcomes'].values() for v in counts.values())


def link(path: Path, target: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize(
    ('name', 'fault'),
    [
        ('images', 'images is a link'),
        ('images/000003.png', 'images/000003.png is a link'),
        ('annotations.json', 'annotations.json is a link'),
        ('manifest.json', 'manifest.json is damaged'),
    ],
)
def test_links_are_named_and_not_followed(
    labelled,
    tmp_path,
    made,
    outside,
    log,
    name,
    fault,
):
    before = contents(made)
    # What it leads to is sound: only that it lies elsewhere is wrong.
    target = outside / Path(name).name
    shutil.move(made / name, target)
    link(made / name, target)
    there = contents(outside)
    report = synthesis(labelled).make_or_find(tmp_path / 'caches')
    assert any(f'({fault})' in message for message in log.messages)
    assert contents(report.folder) == before and contents(outside) == there
    assert not any(path.is_symlink() for path in report.folder.rglob('*'))


@pytest.mark.parametrize('below', ['', 'images', 'images/.000000.png.unfinished'])
def test_nothing_is_written_through_links(labelled, tmp_path, made, outside, below):
    before = contents(made)
    draft = draft_of(made)
    shutil.rmtree(made)
    link(draft / below, outside / 'secret.png' if below.endswith('unfinished') else outside)
    report = synthesis(labelled).make_or_find(tmp_path / 'caches')
    assert contents(report.folder) == before
    assert contents(outside) == {'secret.png': b'not yours'}


def forge_annotations(folder: Path, edit) -> None:
    """With a manifest that agrees."""
    path = folder / 'annotations.json'
    change(path, edit)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    change(folder / 'manifest.json', setting('files', 'annotations.json', value=digest))


ANNOTATIONS = {
    'upwards': setting('images', 0, 'file_name', value='../../../outside/secret.png'),
    'absolute': setting('images', 0, 'file_name', value='/etc/hostname'),
    'an image too few': lambda content: content['images'].pop() and None,
    'no such class': setting('annotations', 0, 'category_id', value=99),
    'no such image': setting('annotations', 0, 'image_id', value=0),
    'a box beyond the image': setting('annotations', 0, 'bbox', value=[0, 0, 1e300, 2]),
    'no number': setting('annotations', 0, 'bbox', value=[0, 0, float('nan'), 2]),
    'a list': lambda _: [1],
}


@pytest.mark.parametrize('name', ANNOTATIONS)
def test_forged_annotations_are_named_and_made_anew(labelled, tmp_path, made, log, name):
    before = contents(made)
    forge_annotations(made, ANNOTATIONS[name])
    if name != 'an image too few':
        with pytest.raises(UserError, match='is no finished cache'):
            read_painted_crops(made)
        with pytest.raises(UserError, match='annotations.json is damaged'):
            draw_synthetic_regions(made, ('dent', 'spot'))
    report = synthesis(labelled).make_or_find(tmp_path / 'caches')
    assert any('(annotations.json is damaged)' in message for message in log.messages)
    assert contents(report.folder) == before


RECORDS = {
    'source': setting('source', value=10**9),
    'label': setting('outcomes', 0, 'label', value='dent'),
    'rejected': setting('outcomes', 0, 'rejected', value=10**400),
    'no outcome': setting('outcomes', value=[]),
    'box': setting('boxes', 0, 'box', value=[0, 0, 1e9, 1e9]),
    'boxes': setting('boxes', value={'x': 1}),
}


@pytest.mark.parametrize('name', RECORDS)
def test_an_image_with_a_forged_record_is_painted_anew(labelled, tmp_path, made, name):
    before = contents(made)
    draft = draft_of(made)
    os.replace(made, draft)
    path = draft / 'images/000002.png'
    with Image.open(path) as image:
        record, pixels = json.loads(image.text['mmdsym']), np.asarray(image.convert('RGB'))
    RECORDS[name](record)
    path.write_bytes(encode(pixels, record))
    synthesiser = Stamp()
    report = synthesis(labelled, synthesiser, batch_size=99).make_or_find(tmp_path / 'caches')
    assert max(synthesiser.batches) == 1
    assert contents(report.folder) == before


def test_an_image_of_another_size_is_not_unpacked(labelled, tmp_path, made, monkeypatch):
    before = contents(made)
    draft = draft_of(made)
    os.replace(made, draft)
    Image.new('L', (9000, 9000)).save(draft / 'images/000002.png')
    unpacked = []
    convert = Image.Image.convert
    monkeypatch.setattr(
        Image.Image, 'convert', lambda self, mode: unpacked.append(self.size) or convert(self, mode)
    )
    report = synthesis(labelled).make_or_find(tmp_path / 'caches')
    assert (9000, 9000) not in unpacked and len(unpacked) >= COUNT - 1
    assert contents(report.folder) == before
