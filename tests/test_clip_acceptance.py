import numpy as np
import pytest
import torch
from clip_data import TINY_CLIP

from mmdsym.clip import acceptance as module
from mmdsym.clip.acceptance import CLIPAcceptance
from mmdsym.clip.model_building import build_clip
from mmdsym.clip.model_writing import write_clip
from mmdsym.diffusion.building import build_part
from mmdsym.errors import UserError
from mmdsym.evaluation.held_out_quality import HeldOutQuality
from mmdsym.registry import ACCEPTANCE_TESTS

CLASSES = ('dent', 'spot')


def build(classes=CLASSES) -> CLIPAcceptance:
    torch.manual_seed(0)
    scorer = dict(classes=CLASSES, model=TINY_CLIP)
    return build_part(ACCEPTANCE_TESTS, dict(type='CLIPAcceptance', scorer=scorer), classes)


def regions(count=6):
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (40, 50, 3), dtype=np.uint8) for _ in range(count)]
    return images, np.array([[5.0, 5.0, 25.0, 30.0]] * count)


def test_it_accepts_the_likeliest_class_and_no_other():
    test = build()
    images, boxes = regions()
    scores = test.scorer.score(
        [torch.from_numpy(image).permute(2, 0, 1) for image in images],
        list(torch.from_numpy(boxes).float()[:, None]),
        [torch.zeros(1, dtype=torch.long)] * len(images),
    )
    likeliest = np.array([int(score.distribution[0].argmax()) for score in scores])
    for label in range(len(CLASSES)):
        accepted = test.accept(images, boxes, np.full(len(images), label))
        assert accepted.dtype == bool
        assert np.array_equal(accepted, likeliest == label)


@pytest.mark.parametrize('path', ['held-out crops', 'adapted model'])
def test_a_scorer_that_knows_nothing_accepts_all_and_says_so_once(tmp_path, monkeypatch, path):
    said = []
    monkeypatch.setattr(module, 'print_log', lambda message, **_: said.append(message))
    nothing, something = (HeldOutQuality(50, share, 0.1, share > 0.5) for share in (0.3, 0.9))
    if path == 'adapted model':
        settings = dict(classes=list(CLASSES), held_out=nothing._asdict())
        write_clip(tmp_path / 'model', build_clip(TINY_CLIP), settings)
        test = CLIPAcceptance(dict(weights=tmp_path / 'model'), CLASSES)
    else:
        test = build()
        test.scorer.held_out = nothing
    images, boxes = regions()
    for label in range(len(CLASSES)):
        assert test.accept(images, boxes, np.full(len(images), label)).all()
    assert len(said) == 1 and 'takes itself out' in said[0] and '\n' not in said[0]
    useless = test.fingerprint
    test.scorer.held_out = something
    assert not test.accept(images, boxes, np.array([0, 1] * 3)).all()
    assert test.fingerprint == test.scorer.fingerprint != useless


def test_nothing_to_judge_is_fine():
    assert build().accept([], np.zeros((0, 4)), np.zeros(0, dtype=int)).shape == (0,)


def test_other_classes_are_refused():
    with pytest.raises(UserError, match='adapt it to these data'):
        build(('dent', 'scratch'))


def test_the_fingerprint_is_that_of_the_scorer():
    first, second = build(), build()
    assert first.fingerprint == second.fingerprint
    prompts = {name: [f'a photo of a {name}'] for name in CLASSES}
    other = CLIPAcceptance(dict(classes=CLASSES, model=TINY_CLIP, prompts=prompts), CLASSES)
    assert first.fingerprint != other.fingerprint
