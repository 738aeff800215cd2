import numpy as np
import pytest
import torch
from clip_data import TINY_CLIP

from mmdsym.clip.acceptance import CLIPAcceptance
from mmdsym.diffusion.building import build_part
from mmdsym.errors import UserError
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
