"""CLIPScorer: what any boxes and images give, and that batches are one pass."""

from __future__ import annotations

import copy

import pytest
import torch
from clip_data import TINY_CLIP
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdsym.clip import CLIPScorer
from mmdsym.clip import encoder as encoder_module
from mmdsym.clip import folded as folded_module
from mmdsym.clip.encoder import PARTS, CropEncoder
from mmdsym.clip.model_building import build_clip
from mmdsym.clip.prototypes import LabelledFeatures
from mmdsym.clip.views import CropView
from mmdsym.errors import UserError
from mmdsym.registry import MODELS

NAN = float('nan')
INFINITE = float('inf')
VIEWS = [dict(context=1.3), dict(context=1.5, shape='box')]
anything = st.floats(-500, 500) | st.sampled_from([NAN, INFINITE, -INFINITE, 0.0, 1e-9, 64.0])


def build(**settings_) -> CLIPScorer:
    torch.manual_seed(0)
    options = dict(classes=('dent', 'spot'), model=TINY_CLIP, **settings_)
    return MODELS.build(dict(type='mmdsym.CLIPScorer', **options))


@pytest.fixture(scope='module')
def scorer() -> CLIPScorer:
    return build(features=('embedding', 'trunk'), views=VIEWS)


@pytest.fixture(scope='module')
def image() -> torch.Tensor:
    return torch.randint(0, 256, (3, 48, 64), generator=torch.manual_seed(1), dtype=torch.uint8)


@settings(max_examples=25)
@given(boxes=st.lists(st.tuples(anything, anything, anything, anything), max_size=6))
def test_any_boxes_give_probabilities(scorer, image, boxes):
    boxes = torch.tensor(boxes).reshape(-1, 4)
    (found,) = scorer.score([image], [boxes], [torch.ones(len(boxes), dtype=torch.long)])
    assert found.distribution.shape == (len(boxes), 3)
    assert torch.allclose(found.distribution.sum(dim=1), torch.ones(len(boxes)), atol=1e-5)
    assert torch.equal(found.agreement, found.distribution[:, 1])
    assert torch.equal(found.background, found.distribution[:, 2])
    lengths = found.features.norm(dim=1)
    assert ((lengths < 1e-9) | ((lengths - 1).abs() < 1e-4)).all()


@pytest.mark.parametrize(
    'box',
    [
        (NAN, 1, 9, 9),
        (3, 3, 3, 9),
        (9, 9, 3, 3),
        (70, 5, 90, 20),
        (-9, -9, 0, 0),
        (0, 0, INFINITE, 9),
    ],
)
def test_a_box_that_shows_nothing_is_background(scorer, image, box):
    boxes = torch.tensor([box, (5, 5, 25, 30)])
    (found,) = scorer.score([image], [boxes], [torch.zeros(2)])
    assert found.agreement[0] == 0
    assert found.background[0] == 1
    assert not found.features[0].any()
    assert 0 < found.background[1] < 1


def test_what_lies_outside_of_the_image_is_cut_off(scorer, image):
    inside, beyond = torch.tensor([[40.0, 10, 64, 48]]), torch.tensor([[40.0, 10, 90, 80]])
    assert torch.equal(scorer.embed([image], [inside])[0], scorer.embed([image], [beyond])[0])


def test_images_without_boxes_and_no_images(scorer, image):
    none, one = torch.zeros(0, 4), torch.tensor([[5.0, 5, 25, 30]])
    found = scorer.score([image, image], [none, one], [torch.zeros(0), torch.zeros(1)])
    assert [len(scores.agreement) for scores in found] == [0, 1]
    assert found[0].features.shape == (0, scorer.encoder.feature_width)
    assert found[1].features.shape == (1, scorer.encoder.feature_width)
    assert scorer.score([image], [none], [torch.zeros(0)])[0].distribution.shape == (0, 3)
    assert scorer.score([], [], []) == []


def test_grey_images_are_images_of_three_equal_channels(scorer, image):
    box = torch.tensor([[5.0, 5, 25, 30]])
    grey = image[:1]
    assert torch.equal(
        scorer.embed([grey], [box])[0], scorer.embed([grey.repeat(3, 1, 1).float()], [box])[0]
    )
    with pytest.raises(UserError, match=r'\(2, 48, 64\)'):
        scorer.embed([image[:2]], [box])


def test_channels_that_are_alike_are_cut_once(image, monkeypatch):
    """Pixel for pixel what cutting all three gives; one other pixel makes it a colour."""
    encoder = CropEncoder(build_clip(TINY_CLIP), [CropView(**view) for view in VIEWS])
    grey = image[:1].repeat(3, 1, 1)
    almost = grey.clone()
    almost[2, 47, 63] ^= 1
    boxes = torch.tensor([[5.0, 5, 25, 30], [40, 20, 64, 48]])
    widths, cut = [], encoder_module.crop_windows
    monkeypatch.setattr(
        encoder_module,
        'crop_windows',
        lambda pixels, *rest: widths.append(len(pixels)) or cut(pixels, *rest),
    )
    crops, _ = encoder.cut([grey, almost, image[:1], grey.float()], [boxes] * 4)
    assert widths == [1, 1, 3, 3, 1, 1, 1, 1]
    expected = torch.stack([cut(grey.float(), v.windows(boxes), 32) for v in encoder.views], dim=1)
    for of_image in (crops[:2], crops[4:6], crops[6:]):
        assert torch.equal(of_image, expected)
    assert torch.equal(crops[2:4, :, :2], expected[:, :, :2])
    assert not torch.equal(crops[2:4, :, 2], expected[:, :, 2])


@pytest.mark.parametrize('count', [1, 200])
def test_one_class_and_many(image, count):
    scorer = build_with_classes(count)
    boxes = torch.tensor([[5.0, 5, 25, 30], [1, 1, 9, 60]])
    (found,) = scorer.score([image], [boxes], [torch.tensor([0, count - 1])])
    assert found.distribution.shape == (2, count + 1)
    assert torch.equal(found.agreement[1], found.distribution[1, count - 1])
    assert found.distribution.isfinite().all()


def build_with_classes(count: int) -> CLIPScorer:
    return CLIPScorer(classes=[f'kind {n}' for n in range(count)], model=TINY_CLIP)


def test_known_features_need_no_forward_pass(scorer, image, monkeypatch):
    boxes, labels = torch.tensor([[5.0, 5, 25, 30], [8, 2, 60, 40]]), torch.tensor([0, 1])
    (found,) = scorer.score([image], [boxes], [labels])
    monkeypatch.setattr(scorer.encoder, 'encode_parts', None)
    again = scorer.score_features(found.features, labels)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


def test_all_crops_of_a_batch_go_through_at_once(scorer, image, monkeypatch):
    passes = []
    encode = scorer.encoder.encode_parts
    monkeypatch.setattr(scorer.encoder, 'encode_parts', count_passes(encode, passes))
    boxes = torch.tensor([[5.0, 5, 25, 30], [8, 2, 60, 40]])
    whole = scorer.embed([image, image[:, :30]], [boxes, boxes])
    assert passes == [8]
    monkeypatch.setattr(scorer.encoder, 'max_crops', 3)
    parts = scorer.embed([image, image[:, :30]], [boxes, boxes])
    assert passes == [8, 3, 3, 2]
    assert torch.allclose(torch.cat(whole), torch.cat(parts), atol=1e-5)


def count_passes(forward, passes: list[int]):
    def counted(inputs):
        passes.append(len(inputs))
        return forward(inputs)

    return counted


def test_crops_have_the_resolution_of_the_original():
    encoder = CropEncoder(build_clip(TINY_CLIP), [CropView(1.0, 'square')])
    image = torch.rand(3, 400, 500) * 255
    crops, _ = encoder.cut([image], [torch.tensor([[300.0, 200, 332, 232]])])
    assert torch.allclose(crops[0, 0], image[:, 200:232, 300:332], atol=1e-3)


def test_a_view_of_the_box_keeps_its_border_in_place():
    windows = CropView(2.0, 'box').windows(torch.tensor([[10.0, 20, 50, 30]]))
    assert windows.tolist() == [[-10, 15, 70, 35]]
    with pytest.raises(UserError, match='circle'):
        CropView(1.3, 'circle')
    with pytest.raises(UserError, match='context is 0.5'):
        CropView(0.5)


def test_the_fingerprint_follows_the_content(scorer):
    same = build(features=('embedding', 'trunk'), views=VIEWS)
    assert same.fingerprint == scorer.fingerprint
    prompts = dict(dent='a dent', spot='a spot')
    other = build(features=('embedding', 'trunk'), views=VIEWS, prompts=prompts)
    assert other.fingerprint != scorer.fingerprint
    assert build(features=('embedding', 'trunk')).fingerprint != scorer.fingerprint
    changed = build(features=('embedding', 'trunk'), views=VIEWS)
    changed.encoder.network.visual.head.proj.weight.data[0, 0] += 1
    assert changed.fingerprint != scorer.fingerprint


def test_nothing_of_it_learns(scorer):
    scorer.train()
    assert not any(module.training for module in scorer.modules())
    assert not any(parameter.requires_grad for parameter in scorer.parameters())


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (dict(evidence='feeling'), "'feeling' does not exist"),
        (dict(evidence='prototypes'), 'set prototypes'),
        (dict(features=('trunk',)), 'do not exist'),
        (dict(max_crops=0), 'max_crops is 0'),
        (dict(prompts=dict(dent=['a dent'])), "'spot' has no CLIP prompt"),
    ],
)
def test_impossible_settings_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        build(**options)


def test_no_class_at_all():
    with pytest.raises(UserError, match='no class'):
        CLIPScorer(model=TINY_CLIP)
    with pytest.raises(UserError, match='no class'):
        CLIPScorer(classes=(), model=TINY_CLIP)


@pytest.mark.parametrize('count', [1, 5])
def test_a_folded_tower_computes_the_same(scorer, image, count, monkeypatch):
    monkeypatch.setattr(folded_module, 'bfloat16_is_faster', lambda: False)
    anew = folded_module.Folded(scorer.encoder.network.visual.trunk)
    monkeypatch.setattr(scorer.encoder, '_folded', anew)
    boxes = torch.tensor([[2.0, 3, 30, 40]]) + torch.arange(count)[:, None]
    plain = CropEncoder(build_clip(TINY_CLIP), [CropView(**view) for view in VIEWS], PARTS)
    plain.network.load_state_dict(scorer.encoder.network.state_dict())
    plain.eval()
    with torch.no_grad():
        (expected,) = plain([image], [boxes])
    (found,) = scorer.embed([image], [boxes])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[0], torch.zeros(1))


class Cut(torch.nn.Module):
    """A network with what the default tower consists of, the residual beside it."""

    def __init__(self, activation: type[torch.nn.Module]) -> None:
        super().__init__()
        layers = [torch.nn.Conv2d(3, 8, 3, 2), torch.nn.BatchNorm2d(8), activation(inplace=True)]
        self.stem = torch.nn.Sequential(*layers)
        self.depth = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.activation = activation(inplace=True)

    def forward(self, inputs):
        found = self.stem(inputs)
        return self.activation(self.depth(found)) + found


@pytest.mark.parametrize('activation', [torch.nn.ReLU6, torch.nn.SiLU])
@pytest.mark.parametrize('fault', [None, RuntimeError, AttributeError, 'wrong'])
def test_a_folded_network_computes_the_same_however_it_is_folded(activation, fault, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(folded_module, 'bfloat16_is_faster', lambda: False)
    network = Cut(activation).eval()
    network.stem[1].running_var.uniform_(0.01, 0.1)
    inputs = 4 * torch.randn(2, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    rewrite = '_jit_pass_custom_pattern_based_rewrite_graph'
    if isinstance(fault, type):
        monkeypatch.setattr(torch._C, rewrite, raise_it(fault))
    if fault == 'wrong':
        monkeypatch.setattr(folded_module, '_FUSED', folded_module._FUSED.replace('hardt', 't'))
    folded = folded_module.Folded(network)
    for shown in (inputs, inputs[:1], inputs.flip(0)):
        with torch.no_grad():
            expected = network(shown)
        torch.testing.assert_close(folded(shown), expected, rtol=1e-4, atol=1e-5)
    fuses = fault is None and activation is torch.nn.ReLU6
    graph = str(folded._traced_network.graph)
    assert ('hardtanh_' in graph) == (activation is torch.nn.ReLU6 and not fuses)
    assert graph.count('mkldnn::_convolution_pointwise') == (2 if fuses else 0)


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason='a processor without AVX512'
)
@pytest.mark.parametrize(
    ('least_cosine', 'precision'), [(0.998, torch.bfloat16), (1.1, torch.float32)]
)
def test_half_the_digits_do_where_features_keep_their_direction(
    least_cosine, precision, monkeypatch
):
    torch.manual_seed(0)
    monkeypatch.setattr(folded_module, 'bfloat16_is_faster', lambda: True)
    monkeypatch.setattr(folded_module, '_LEAST_COSINE', least_cosine)
    network = Cut(torch.nn.ReLU6).eval()
    # Rounded before they are folded, such a mean and deviation turn the vector twice as far.
    network.stem[1].running_var.fill_(1e-4)
    network.stem[1].running_mean.uniform_(1.0, 2.0)
    network.stem[1].bias.data = network.stem[1].running_mean / 0.0105
    weights = copy.deepcopy(network.state_dict())
    inputs = 4 * torch.randn(2, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    folded = folded_module.Folded(network)
    with torch.no_grad():
        expected, found = network(inputs), folded(inputs)
    assert found.dtype == torch.float32 and folded.precision == precision
    assert torch.cosine_similarity(found, expected).min() > 0.998
    exact = torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert exact == (precision == torch.float32)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=0)


def raise_it(fault):
    def fail(*_):
        raise fault('no such thing')

    return fail


@pytest.mark.parametrize('parts', [('embedding',), ('embedding', 'trunk')])
def test_likeness_is_agreement_until_crops_are_known(image, parts):
    scorer = build(features=parts)
    boxes = torch.tensor([[2.0, 3, 30, 40], [20, 8, 60, 46], [1, 1, 9, 9]])
    labels = torch.tensor([0, 1, 0])
    (features,) = scorer.embed([image], [boxes])
    agreement = scorer.score_features(features, labels).agreement
    torch.testing.assert_close(scorer.likeness(features, labels), agreement)
    scorer.fit(LabelledFeatures(features[:2], labels[:2]), None)
    likeness = scorer.likeness(features, labels)
    torch.testing.assert_close(likeness[:2], torch.ones(2))
    assert -1 <= likeness[2] < 0.9999


@pytest.mark.parametrize('parts', [('embedding',), ('embedding', 'trunk')])
def test_labelled_crops_are_compared_where_the_scorer_computes(image, parts):
    scorer = build(features=parts)
    boxes = torch.tensor([[2.0, 3, 30, 40], [20, 8, 60, 46]])
    labels = torch.tensor([0, 1])
    (features,) = scorer.embed([image], [boxes])
    scorer.fit(LabelledFeatures(features, labels), None)
    # Known crops come from the CPU; torch refuses to mix them with those of another device, for
    # which its device without storage stands here.
    scorer.to('meta')
    assert scorer.likeness(features, labels).device.type == 'meta'


@pytest.mark.parametrize('fault', [RuntimeError, AttributeError])
def test_all_digits_stay_where_torch_cannot_shorten_them(fault, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(folded_module, 'bfloat16_is_faster', lambda: True)
    monkeypatch.setattr(torch._C, '_jit_pass_erase_shape_information', raise_it(fault))
    network = Cut(torch.nn.ReLU6).eval()
    inputs = torch.randn(2, 3, 16, 16)
    folded = folded_module.Folded(network)
    with torch.no_grad():
        torch.testing.assert_close(folded(inputs), network(inputs), rtol=1e-4, atol=1e-5)
    assert folded.precision == torch.float32
