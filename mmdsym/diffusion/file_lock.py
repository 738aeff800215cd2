"""A lock between processes that ends with the process that holds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.logging import print_log

from mmdsym.errors import UserError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive ``flock`` on a file; waits, and says so, while another process has it.

    The file stays: removing it would let two processes hold locks of the same name.

    Raises:
        UserError: The file cannot be written or its file system knows no locks.
    """
    import fcntl  # Not on Windows, where the rest of the package can still be imported.

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = open(path, 'ab')  # noqa: SIM115  (closed below, which releases the lock)
    except OSError as error:
        raise UserError(
            f'{path.parent} cannot be written ({error.strerror}): make it writable or name another '
            'cache_dir.'
        ) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print_log(f'Another process works on {path.parent}: waiting for it.', logger='current')
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError as error:
            raise UserError(
                f'{path} cannot be locked ({error.strerror}): name a cache_dir on a file system '
                'with locks.'
            ) from error
        yield
