"""Prompts: defaults, names alone, and the class that was forgotten."""

from __future__ import annotations

import pytest

from mmdsym.clip.prompts import build_prompts, readable_name
from mmdsym.errors import UserError

NEU = ['crazing', 'inclusion', 'patches', 'pitted_surface', 'rolled-in_scale', 'scratches']


def test_steel_defects_have_sentences_of_their_own():
    found = build_prompts(NEU)
    assert len(found) == 7
    assert all('steel' in sentence for sentence in found[0])
    assert any('steel' in sentence for sentence in found[-1])
    everything = [sentence for sentences in found for sentence in sentences]
    assert len(set(everything)) == len(everything)


def test_class_names_alone_are_enough():
    dent, crack, normal = build_prompts(['dent', 'hair_crack'])
    assert all('dent' in sentence for sentence in dent)
    assert all('hair crack' in sentence for sentence in crack)
    assert not any('{}' in sentence for sentence in dent + crack + normal)
    assert not any('steel' in sentence for sentence in normal)


def test_own_prompts_replace_the_defaults():
    found = build_prompts(['dent'], dict(dent=['a {} in wood']), 'plain wood')
    assert found == [['a dent in wood'], ['plain wood']]
    assert build_prompts(['dent'], dict(dent='a hollow'))[0] == ['a hollow']


@pytest.mark.parametrize(
    'prompts',
    [dict(dent=['a dent']), dict(dent=['a dent'], spot=[]), dict(dent='a dent', spot=['  '])],
)
def test_a_forgotten_class_is_named(prompts):
    with pytest.raises(UserError, match="'spot' has no CLIP prompt"):
        build_prompts(['dent', 'spot'], prompts)


LEARNT = dict(classes=['dent', 'spot'], prompts=[['a hollow'], ['a stain'], ['plain wood']])


def test_an_adapted_model_keeps_its_sentences_unless_others_are_given():
    classes = ['dent', 'spot']
    assert build_prompts(classes, adapted=LEARNT) == LEARNT['prompts']
    own = dict(dent='a {}', spot='a {}')
    assert build_prompts(classes, own, adapted=LEARNT) == [['a dent'], ['a spot'], ['plain wood']]
    found = build_prompts(classes, None, 'bare wood', LEARNT)
    assert found == [['a hollow'], ['a stain'], ['bare wood']]
    # By name, whatever the order, and new classes have the defaults.
    found = build_prompts(['spot', 'crack', 'dent'], adapted=LEARNT)
    assert found == [['a stain'], build_prompts(['crack'])[0], ['a hollow'], ['plain wood']]
    assert build_prompts(classes, adapted=dict(classes=classes)) == build_prompts(classes)


def test_prompts_of_an_adapted_model_that_cannot_be():
    for prompts in ([['a hollow'], ['a stain']], ['a', 'b', 'c']):
        with pytest.raises(UserError, match='adapt it anew'):
            build_prompts(['dent', 'spot'], adapted=dict(LEARNT, prompts=prompts))


def test_no_sentence_for_the_normal_surface():
    with pytest.raises(UserError, match='background_prompts'):
        build_prompts(['dent'], None, [])


def test_names_are_written_as_words():
    assert readable_name('rolled-in_scale') == 'rolled-in scale'
    assert readable_name('_') == '_'
