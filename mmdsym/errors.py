"""Errors that speak to the user: one sentence that names the thing and the cure."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import NoReturn


class UserError(ValueError):
    """A fault in the user's data, config or checkpoint.

    The message is one sentence that names the thing and the cure. The tools print it without a
    traceback, since it is not a fault of the program.
    """


def exit_on_user_error(main: Callable[..., None]) -> Callable[..., None]:
    """Makes a command print a :class:`UserError` as one line and exit with status 2."""

    @wraps(main)
    def guarded(*args, **kwargs) -> None:
        try:
            main(*args, **kwargs)
        except UserError as error:
            _exit_with(own_words(error))

    return guarded


def own_words(error: UserError) -> str:
    """Returns the sentence of an error without what was wrapped around it on its way.

    A data loader's worker hands its error on with the whole traceback as message; the sentence is
    its last line, behind the name of the class.
    """
    message = str(error).strip()
    if not message.startswith(f'Caught {UserError.__name__} in DataLoader worker'):
        return message
    name = f'{UserError.__module__}.{UserError.__name__}: '
    return message.splitlines()[-1].removeprefix(name)


def _exit_with(message: str) -> NoReturn:
    # Names of files need not be text.
    told = message.encode(errors='backslashreplace').decode()
    print(f'error: {told}', file=sys.stderr)
    raise SystemExit(2)
