"""What a CLIP model is asked: several sentences for each class and for a normal surface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmdsym.class_prompts import Prompts, prompts_by_class
from mmdsym.errors import UserError

TEMPLATES = (
    'a photo of a {} defect',
    'a close-up of {} on a surface',
    'a grey image of {}',
    'a surface with {}',
    'an industrial part with {}',
    '{}',
)
"""For classes of which nothing is known but the name; ``{}`` is its place."""

BACKGROUND_PROMPTS = (
    'a normal surface',
    'a clean surface without defects',
    'a photo of a flawless surface',
    'a grey image of an intact surface',
    'an industrial part without a flaw',
    'a plain surface texture',
)

STEEL_DESCRIPTIONS: dict[str, tuple[str, ...]] = {
    'crazing': ('a network of fine cracks', 'crazing', 'fine surface cracks like a spider web'),
    'inclusion': ('a dark inclusion', 'foreign material pressed into steel', 'a slag inclusion'),
    'patches': ('bright patches', 'a blotchy area', 'stained patches'),
    'pitted_surface': ('a pitted surface', 'many small corrosion pits', 'pitting'),
    'rolled-in_scale': ('rolled-in scale', 'oxide scale pressed into steel', 'flaky mill scale'),
    'scratches': ('a straight bright scratch', 'scratches', 'thin parallel score marks'),
}
"""What the six defects of NEU-DET look like."""

STEEL_TEMPLATES = (
    'a photo of hot-rolled steel with {}',
    'a grey close-up of {} on a steel strip',
)

STEEL_BACKGROUND_PROMPTS = (
    'a normal steel surface',
    'a photo of hot-rolled steel without defects',
    'a grey close-up of a clean steel strip',
    'a flawless metal surface',
    'an intact steel strip',
    'a plain metal texture',
)


def build_prompts(
    classes: Sequence[str],
    prompts: Prompts | None = None,
    background_prompts: Sequence[str] | str | None = None,
    adapted: Mapping | None = None,
) -> list[list[str]]:
    """Returns the sentences of every class, those of the normal surface last.

    Args:
        classes: Class names, from one.
        prompts: Sentences of each class, by its name or in pairs with it; ``{}`` in them becomes
            the class name. By default those for steel where the names are NEU-DET's, and generic
            ones otherwise.
        background_prompts: Sentences of a surface without a defect.
        adapted: Settings that came with an adapted model, see
            :attr:`mmdsym.clip.model_building.ClipModel.settings`: the sentences that it has learnt
            go before the defaults, for the classes that it knows.

    Returns:
        One list of sentences for each class, and one more.

    Raises:
        UserError: No class at all, or one without a prompt, which the message names; or an adapted
            model with other sentences than classes.
    """
    if not classes:
        raise UserError('the CLIP scorer was given no class: name at least one in classes.')
    prompts = prompts_by_class(prompts)
    known_steel = all(name in STEEL_DESCRIPTIONS for name in classes)
    learnt, learnt_background = _learnt_prompts(adapted or {})
    found = [
        learnt.get(name) or _default_prompts(name)
        if prompts is None
        else _as_list(prompts.get(name))
        for name in classes
    ]
    if background_prompts is None:
        default = STEEL_BACKGROUND_PROMPTS if known_steel else BACKGROUND_PROMPTS
        background_prompts = learnt_background or default
    found.append(_as_list(background_prompts))
    for name, sentences in zip([*classes, 'normal surface'], found, strict=True):
        if not any(sentence.strip() for sentence in sentences):
            place = 'background_prompts' if name == 'normal surface' else f"prompts['{name}']"
            raise UserError(
                f"the class '{name}' has no CLIP prompt: add at least one sentence as {place}."
            )
    names = [readable_name(name) for name in classes] + ['normal surface']
    return [
        [sentence.replace('{}', name) for sentence in sentences]
        for name, sentences in zip(names, found, strict=True)
    ]


def readable_name(name: str) -> str:
    """Returns a class name as one would write it: ``rolled-in_scale`` -> ``rolled-in scale``."""
    return ' '.join(name.replace('_', ' ').split()) or name


def _learnt_prompts(adapted: Mapping) -> tuple[dict[str, list[str]], list[str] | None]:
    """The sentences of each class, and of the normal surface, that a model was adapted with."""
    classes, sentences = adapted.get('classes') or [], adapted.get('prompts')
    if not sentences:
        return {}, None
    if len(sentences) != len(classes) + 1 or any(isinstance(entry, str) for entry in sentences):
        raise UserError(
            f'the adapted CLIP model has {len(sentences)} lists of prompts for {len(classes)} '
            'classes and a normal surface: adapt it anew.'
        )
    *of_classes, background = (list(entry) for entry in sentences)
    return dict(zip(classes, of_classes, strict=True)), background


def _default_prompts(name: str) -> list[str]:
    descriptions = STEEL_DESCRIPTIONS.get(name)
    if descriptions is None:
        return list(TEMPLATES)
    return [template.replace('{}', what) for what in descriptions for template in STEEL_TEMPLATES]


def _as_list(sentences: Sequence[str] | str | None) -> list[str]:
    if sentences is None:
        return []
    return [sentences] if isinstance(sentences, str) else list(sentences)
