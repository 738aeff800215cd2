"""Prompts given class by class, as mapping or as pairs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from mmdsym.errors import UserError

Prompts = Mapping[str, Any] | Sequence[tuple[str, Any]]
"""Class name to prompts, or pairs of both."""


def prompts_by_class(prompts: Prompts | None) -> dict[str, Any] | None:
    """Returns prompts by class name, whichever way they are given; ``None`` for none."""
    return None if prompts is None else dict(prompts)


def require_prompts(prompts: Prompts, classes: Sequence[str]) -> dict[str, Any]:
    """Returns prompts by class name, if they are those of the data's classes.

    Raises:
        UserError: One is of no class of the data, or a class has none.
    """
    prompts = prompts_by_class(prompts)
    for name in prompts:
        if name not in classes:
            near = difflib.get_close_matches(name, classes, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f'they are {", ".join(classes)}.'
            raise UserError(f"prompts name '{name}', which is no class of the data: {hint}")
    missing = [name for name in classes if _is_empty(prompts.get(name))]
    if missing:
        raise UserError(
            f'prompts say nothing of {", ".join(missing)}: give every class a sentence, or leave '
            'prompts out.'
        )
    return prompts


def _is_empty(sentences: Any) -> bool:
    return not (sentences.strip() if isinstance(sentences, str) else sentences)
