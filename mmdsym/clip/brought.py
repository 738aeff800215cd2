"""What an adapted model brings along for the one who scores with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmdsym.datasets import read_classes
from mmdsym.errors import UserError
from mmdsym.evaluation.held_out_quality import HeldOutQuality


def choose_classes(
    given: Sequence[str] | str | None, brought: Sequence[str] | None, weights: object
) -> tuple[str, ...]:
    """Returns the classes of a scorer, which cannot be others than those it was adapted to.

    Args:
        given: By the config: names, or a COCO json that has them.
        brought: By the model.
        weights: Where the model came from, for the message.

    Raises:
        UserError: None at all, or others.
    """
    if given is None:
        if not brought:
            raise UserError('the CLIP scorer was given no class: set classes.')
        return tuple(brought)
    named_file = isinstance(given, str)
    classes = read_classes(Path(given)) if named_file else tuple(given)
    if brought and tuple(brought) != classes:
        raise UserError(
            f'the CLIP model in {weights} was adapted to the classes {list(brought)}, not to '
            f'{list(classes)}: adapt one to this data, or correct classes.'
        )
    return classes


def brought_quality(brought: Mapping, *changes: object) -> HeldOutQuality | None:
    """Returns how right an adapted model was on crops held out of its training.

    Args:
        brought: Settings of the model.
        *changes: What it is asked differently now, ``None`` for nothing; then that is not known.

    Raises:
        UserError: What it says of that is nothing that we write.
    """
    content = brought.get('held_out')
    if content is None or any(change is not None for change in changes):
        return None
    try:
        return HeldOutQuality(**content)
    except TypeError as error:
        raise UserError(
            f'the adapted CLIP model says nothing that is known of its quality ({error}): adapt it '
            'anew.'
        ) from None
