"""Why an image is suggested, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .worth import Doubt

TEACHER_STUDENT = 'teacher_student'
DETECTOR_CLIP = 'detector_clip'
NEAR_THRESHOLD = 'near_threshold'
PARTS = {
    TEACHER_STUDENT: 'teacher and student disagree',
    DETECTOR_CLIP: 'CLIP disagrees',
    NEAR_THRESHOLD: 'scores near the threshold',
}
"""Parts of the doubt, and how each is told."""

_HIGH_NOVELTY = 0.8
_LEAST_DOUBT = 0.1
_HIGH_SHARE = 0.75


def explain(
    doubts: Mapping[str, Doubt],
    usual: Mapping[str, float],
    novelty: float,
    classes: Sequence[str],
    anything_found: bool,
) -> str:
    """Says in words what makes an image worth a label.

    Args:
        doubts: Its parts of :data:`PARTS`.
        usual: For each part, what three of four images stay below.
        novelty: In [0, 1].
        classes: Class names.
        anything_found: Whether the detector takes anything on it for a defect.
    """
    told = []
    for name, doubt in sorted(doubts.items(), key=lambda item: -item[1].value):
        if doubt.value >= max(usual[name], _LEAST_DOUBT):
            of_class = '' if doubt.label is None else f' ({classes[doubt.label]})'
            told.append(f'{PARTS[name]}{of_class}')
    if novelty >= _HIGH_NOVELTY:
        told.append('unlike labelled images')
    if not anything_found:
        told.append('no defect found')
    return '; '.join(told) or 'the most informative of the rest'


def usual_values(doubts: Sequence[Mapping[str, Doubt]]) -> dict[str, float]:
    """Returns for each part the value that three of four images stay below."""
    if not doubts:
        return {}
    ordered = {name: sorted(doubt[name].value for doubt in doubts) for name in doubts[0]}
    return {name: values[int(_HIGH_SHARE * (len(values) - 1))] for name, values in ordered.items()}
