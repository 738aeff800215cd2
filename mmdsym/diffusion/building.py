"""Builds synthesisers and acceptance tests from their configs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature

from mmengine.registry import Registry

from mmdsym.errors import UserError


def build_part(registry: Registry, config: Mapping, classes: Sequence[str]) -> object:
    """Builds a part that may want to know the classes of the data.

    Unlike ``registry.build``, it leaves the default scope alone, so that parts may themselves
    build what belongs to MMDetection.

    Args:
        registry: ``SYNTHESISERS`` or ``ACCEPTANCE_TESTS``.
        config: ``type`` and arguments. ``classes`` is filled in where it is not stated.
        classes: Class names, in the order of the labels.

    Raises:
        UserError: There is no such part, or an argument is unknown or missing.
    """
    arguments = dict(config)
    name = arguments.pop('type', None)
    part = registry.get(name) if isinstance(name, str) else name
    if part is None:
        known = ', '.join(f'mmdsym.{known}' for known in sorted(registry.module_dict))
        raise UserError(f"there is no {registry.name} '{name}': known are {known}.")
    if 'classes' in signature(part).parameters:
        arguments.setdefault('classes', tuple(classes))
    try:
        signature(part).bind(**arguments)
    except TypeError as error:
        raise UserError(f'{registry.name} {name} has {error}: correct it in the config.') from None
    return part(**arguments)
