"""What ``--cfg-options KEY=VALUE`` means: lists as MMEngine documents them, text as typed."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from mmengine.config import DictAction

from mmdsym.errors import UserError

_QUOTES = '\'"'
_BRACKETS = {'(': ')', '[': ']'}
_OF_PATHS_AND_SENTENCES = '/\\ '


class ConfigOptions(DictAction):
    """MMEngine's action of argparse, with values as :func:`parse_value` reads them.

    MMEngine's own takes all spaces out of a value, so that ``data/my parts/`` becomes another
    folder, and tears a path at its commas.
    """

    def __call__(
        self,
        parser: ArgumentParser,
        namespace: Namespace,
        values: Sequence[str],
        option_string: str | None = None,
    ) -> None:
        """Adds the settings of a command line to those that it has named before.

        Raises:
            UserError: One is no ``KEY=VALUE``, or a bracket is not closed.
        """
        options = dict(getattr(namespace, self.dest) or {})
        for pair in values:
            name, is_there, value = pair.partition('=')
            if not is_there:
                raise UserError(
                    f"--cfg-options has '{pair}', which sets nothing: write KEY=VALUE, in quotes "
                    'where it holds spaces.'
                )
            options[name] = parse_value(value)
        setattr(namespace, self.dest, options)


def parse_value(text: str) -> object:
    """Reads a value of a command line.

    - ``3``, ``0.5``, ``True`` and ``None`` are what they say.
    - ``[a,b]`` and ``(320, 320)`` are a list and a tuple, nested ones too.
    - ``1,2,3`` and ``dent, spot`` are lists of numbers or words.
    - All else is text and stays as it was typed, but for quotes around it. With a slash, a
      backslash or a word of several parts, commas do not make a list: ``data/parts, new/`` is one
      folder, and ``[a/b,c/d]`` are two. A path that would look like a list, such as ``a,b``, is
      written ``./a,b``.

    Raises:
        UserError: A bracket is not closed.
    """
    bare = text.strip().strip(_QUOTES).strip()
    if _is_enclosed(bare):
        values = [parse_value(item) for item in _items(bare[1:-1])]
        return tuple(values) if bare[0] == '(' else values
    if bare[:1] in _BRACKETS and not _is_balanced(bare):
        raise UserError(f"--cfg-options has '{text}' with a bracket too many: close or remove it.")
    items = _items(bare)
    if ',' in bare and not any(map(_is_text, items)):
        return [parse_value(item) for item in items]
    value = DictAction._parse_int_float_bool(bare)
    return text.strip(_QUOTES) if isinstance(value, str) else value


def _is_enclosed(text: str) -> bool:
    """Whether a pair of brackets holds the whole, unlike those of ``(1,2),(3,4)``."""
    if text[:1] not in _BRACKETS or text[-1] != _BRACKETS[text[0]]:
        return False
    return _is_balanced(text) and not any(_is_balanced(text[:end]) for end in range(1, len(text)))


def _is_balanced(text: str) -> bool:
    return all(text.count(opening) == text.count(closing) for opening, closing in _BRACKETS.items())


def _is_text(item: str) -> bool:
    return not _is_enclosed(item) and any(mark in item for mark in _OF_PATHS_AND_SENTENCES)


def _items(text: str) -> list[str]:
    """Splits at commas outside of brackets; one comma at the end, as in ``(1,)``, ends the last."""
    items, begin = [], 0
    for end, letter in enumerate(text):
        if letter == ',' and _is_balanced(text[begin:end]):
            items.append(text[begin:end].strip())
            begin = end + 1
    return [*items, last] if (last := text[begin:].strip()) else items
