"""What MMEngine says of a config that is wrong, in one sentence with its cure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from mmdsym.errors import UserError

_UNKNOWN_TYPE = re.compile(r'(\S+) is not in the (\S+)::(.+?) registry')
_WRONG_ARGUMENT = re.compile(
    r"(?P<where>\S+)\(\) (?:got an unexpected keyword argument '(?P<unknown>[^']+)'"
    r'|missing \d+ required (?:positional|keyword-only) arguments?: (?P<missing>.+))'
)


@contextmanager
def config_faults_told(config: str) -> Iterator[None]:
    """Turns MMEngine's errors about a config into ours; all others stay what they are.

    Args:
        config: Its file, which the message names.

    Raises:
        UserError: The config names a type that nobody registered, an argument that its type does
            not take, lacks one, or sets something below what is no dict.
    """
    try:
        yield
    except (AttributeError, KeyError, TypeError) as error:
        fault = _fault(str(error))
        if not fault:
            raise
        raise UserError(f'{config} {fault}.') from error


def in_one_line(error: BaseException) -> str:
    """Returns the kind of an error and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f'{type(error).__name__}: {lines[0]}' if lines else type(error).__name__


def _fault(message: str) -> str:
    unknown = _UNKNOWN_TYPE.search(message)
    if unknown:
        name, scope, registry = unknown.groups()
        return (
            f"says type='{name.strip(chr(39) + chr(34))}', which {scope} does not know as a "
            f'{registry}: correct the name, or import its module with custom_imports'
        )
    wrong = _WRONG_ARGUMENT.search(message)
    if wrong:
        owner = wrong['where'].removesuffix('.__init__')
        if wrong['unknown']:
            return (
                f"gives {owner} the setting '{wrong['unknown']}', which it does not have: remove it"
            )
        return f'gives {owner} no {wrong["missing"]}: add it'
    if 'cannot be merged' in message or 'is a dict in child config' in message:
        return f'has settings that do not fit together ({message.splitlines()[0]}): correct them'
    return ''
