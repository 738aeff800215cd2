"""File names in annotations never lead to a file outside of the folder that they belong in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from preparation_data import BOX, coco_json, make_coco_one, save_image, write
from test_merge_labels import main, prepare  # noqa: F401  (fixtures)

from mmdsym.datasets.preparation.inside import inner_path
from mmdsym.errors import UserError
from mmdsym.labelling.image_list import read_image_list
from mmdsym.tiling.whole_images import from_json

LEADING_OUT = {
    'parent': '../../outside/secret.png',
    'parent in the middle': 'a/../../outside/secret.png',
    'absolute': '{root}/outside/secret.png',
    'link to a file': 'linked.png',
    'link to a folder': 'linked/secret.png',
    'backslashes': '..\\..\\outside\\secret.png',
    'drive': 'C:\\outside\\secret.png',
    'drive without root': 'C:secret.png',
    'network': '\\\\server\\secret.png',
    'nothing': '',
    'zero byte': 'a\0b.png',
}


@pytest.fixture
def spoil(tmp_path):
    """Makes a folder of images with links that lead out; returns a way to fill in a name."""
    save_image(tmp_path / 'outside/secret.png')

    def name_in(folder: Path, kind: str) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'linked.png').symlink_to(tmp_path / 'outside/secret.png')
        (folder / 'linked').symlink_to(tmp_path / 'outside')
        return LEADING_OUT[kind].format(root=tmp_path)

    return name_in


@pytest.mark.parametrize('kind', LEADING_OUT)
def test_lists_of_images_refuse_names_that_lead_out(spoil, tmp_path, kind):
    name = spoil(tmp_path / 'data/images', kind)
    content = coco_json([(name, [('dent', BOX)])], ['dent'])
    listed = write(tmp_path / 'data/list.json', content)
    with pytest.raises(UserError, match='list.json names the image') as told:
        read_image_list(listed, tmp_path / 'data/images')
    assert '\n' not in str(told.value)
    with pytest.raises(UserError, match='list.json names the image'):
        from_json(listed, tmp_path / 'data/images', ('dent',))


@pytest.mark.parametrize('kind', LEADING_OUT)
@pytest.mark.parametrize('part', ['train', 'all/unlabelled'])
def test_a_merge_refuses_names_that_lead_out(prepare, spoil, tmp_path, kind, part):  # noqa: F811
    source = make_coco_one(tmp_path / 'source')
    status, told = prepare(source, '--name', 'old', '--fractions', 0.5, '--seeds', 0)
    assert status == 0, told
    old = tmp_path / 'data/old'
    path = old / 'annotations' / f'{part.replace("all", "50pct_seed0")}.json'
    content = json.loads(path.read_text())
    content['images'][0]['file_name'] = spoil(old / 'images', kind)
    path.write_text(json.dumps(content))
    came_back = write(tmp_path / 'back.json', coco_json([('part3.jpg', [('dent', BOX)])], ['dent']))
    before = sorted(tmp_path.rglob('*'))
    status, told = prepare(came_back, '--merge', old, '--name', 'new', '--prefer', 'new')
    assert status == 2 and 'names the image' in told and 'Traceback' not in told
    assert sorted(tmp_path.rglob('*')) == before


def test_names_inside_are_found_even_behind_a_linked_folder(tmp_path):
    save_image(tmp_path / 'disk/a/b.png')
    (tmp_path / 'images').symlink_to(tmp_path / 'disk')
    assert inner_path(tmp_path / 'images', 'a/b.png', Path('x.json')).is_file()
    assert inner_path(tmp_path / 'images', 'not there..png', Path('x.json')).name.endswith('..png')
