"""Keeps libraries from printing into the output of a command."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def quiet() -> Iterator[None]:
    """Swallows what is printed, such as pycocotools' progress."""
    with redirect_stdout(io.StringIO()):
        yield
