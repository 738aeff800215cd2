"""Trains one part, in a process of its own.

Run as ``python -m mmdsym.pipeline.part_training FOLDER``, where FOLDER holds the completed config
``part.py``. A process of its own leaves the memory, the random numbers and the threads of the
detector's training alone. It ends with the process that started it, and holds the lock itself, so
that no two of them ever train the same part.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path

from mmengine.config import Config

from mmdsym.errors import UserError, exit_on_user_error
from mmdsym.run_log import read_run_log

from .contents import Contents
from .description import describe, digest_of
from .exports import find_export, is_exported
from .progress import iterations_done, latest_checkpoint
from .starts import note_start

CONFIG_NAME = 'part.py'
RECORD_NAME = 'made.json'
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def faults_of(model_folder: Path, training_folder: Path) -> list[str]:
    """Names the files of a finished model that are no more what they were when it was made.

    Empty where the training's record is gone: then the name of the folder has to do.
    """
    try:
        record = json.loads((training_folder / RECORD_NAME).read_bytes())['files']
    except (OSError, ValueError, KeyError, TypeError):
        return []
    found = _digests(model_folder)
    return [name for name, digest in record.items() if found.get(name) != digest]


def hours_of(training_folder: Path) -> float | None:
    """Returns what making a part took, all starts together; ``None`` if unknown.

    Of starts that were interrupted, the iterations count from which the next one went on.
    """
    try:
        return float(json.loads((training_folder / RECORD_NAME).read_bytes())['seconds']) / 3600
    except (OSError, ValueError, KeyError, TypeError):
        return None


def train_part(folder: Path) -> None:
    """Trains, or goes on training, what ``part.py`` in a folder says, unless it is there.

    The caller holds the lock of the folder.

    Raises:
        UserError: Whatever is wrong with the config or the data, which may have changed meanwhile.
    """
    from mmdsym.atomic_file import write_file
    from mmdsym.command_line import build_runner

    cfg = Config.fromfile(folder / CONFIG_NAME)
    export, hook = find_export(cfg)
    model_folder = Path(hook[export.argument])
    # What follows is of this start alone, and MMEngine writes it into part.py.
    declared = cfg.copy()
    key = digest_of(describe(declared, Contents()))
    faults = faults_of(model_folder, folder)
    if is_exported(cfg) and not faults:
        return
    if faults:
        print(f'The {export.title} in {model_folder} is damaged ({faults[0]}): made anew.')
        shutil.rmtree(model_folder, ignore_errors=True)
        (folder / RECORD_NAME).unlink(missing_ok=True)
    _refuse_changed_data(key, model_folder)
    checkpoint = latest_checkpoint(folder)
    cfg.resume = checkpoint is not None
    if checkpoint is not None:
        cfg.load_from = str(checkpoint)
    done = iterations_done(folder)
    note_start(folder, done)
    earlier = read_run_log(folder).seconds_until(done)
    begin = time.monotonic()
    build_runner(cfg).train()
    if digest_of(describe(declared, Contents())) != key:
        _discard(model_folder, folder)
        raise UserError(
            f'labels or images changed while the {export.title} was trained, so that it belongs '
            'to neither: it was discarded; let the data rest and start the same command again.'
        )
    seconds = round(earlier + time.monotonic() - begin, 1)
    record = dict(files=_digests(model_folder), seconds=seconds)
    write_file(folder / RECORD_NAME, json.dumps(record, indent=1).encode())


def _refuse_changed_data(key: str, model_folder: Path) -> None:
    # The name of the folder says from what the model in it follows.
    if not model_folder.name.endswith(f'-{key}'):
        raise UserError(
            f'labels or images changed since the folder {model_folder} was named after them: start '
            'the same command again, which takes them as they are now.'
        )


def _discard(model_folder: Path, training_folder: Path) -> None:
    """Removes what was learned, which else would be gone on from once the data are as before."""
    shutil.rmtree(model_folder, ignore_errors=True)
    for checkpoint in training_folder.glob('*.pth'):
        checkpoint.unlink()
    (training_folder / 'last_checkpoint').unlink(missing_ok=True)


def end_with_parent() -> None:
    """Ends this process as soon as the one that holds the other end of its input is gone."""

    def wait() -> None:
        # Not by way of sys.stdin: a worker forked meanwhile could never close it.
        os.read(0, 1)
        os._exit(INTERRUPTED)

    threading.Thread(target=wait, daemon=True).start()


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


@exit_on_user_error
def main() -> None:
    """Trains the part of the folder that the command line names."""
    from mmdsym.diffusion.file_lock import locked

    end_with_parent()
    folder = Path(sys.argv[1])
    try:
        with locked(folder / '.lock'):
            train_part(folder)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


if __name__ == '__main__':
    main()
