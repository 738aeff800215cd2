"""Prompts of classes whose names MMEngine cannot write as keys of a config."""

from __future__ import annotations

from keyword import iskeyword
from typing import Any

from mmengine.config import Config

PROMPTS = 'prompts'


def list_awkward_prompts(cfg: Config) -> None:
    """Turns prompts with such keys into pairs of class name and prompts, wherever they stand.

    MMEngine writes configs as ``dict(name=...)``, which for ``break`` is no Python, or as
    ``{'name': ...}`` without caring for a quotation mark in it.
    """
    _list_prompts(cfg._cfg_dict)


def _list_prompts(node: Any) -> None:
    if isinstance(node, (list, tuple)):
        for entry in node:
            _list_prompts(entry)
    if not isinstance(node, dict):
        return
    for key, entry in node.items():
        # Options for a part's config name a setting by its path.
        by_class = str(key).split('.')[-1] == PROMPTS and isinstance(entry, dict)
        if by_class and any(map(_is_awkward, entry)):
            node[key] = [[name, sentences] for name, sentences in entry.items()]
        else:
            _list_prompts(entry)


def _is_awkward(name: str) -> bool:
    return iskeyword(name) or any(sign in name for sign in "'\\\n")
