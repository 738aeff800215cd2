"""Earlier runs whose iterations take as long as those of another one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from mmdsym.errors import UserError

from .run_record import RECORD_NAME, read_record

_FILTER_MODE = 'custom_hooks.CLIPPseudoLabelFilterHook.mode'
_STAGES = 'train_cfg.stages.'

Settings = Mapping[str, object]


def runs_alike(work_dir: Path, settings: Settings) -> Iterator[tuple[Path, Settings]]:
    """Yields runs beside a work folder that do the same work on an image, the newest first.

    The name of a config says little: two detectors may have a ``dsym.py`` each, and options of the
    command line exchange a backbone or the size of images.

    Args:
        work_dir: The folder of the run that is to be estimated.
        settings: What determines it, see :func:`mmdsym.pipeline.description.describe`.
    """
    wanted = _work_on_an_image(settings)
    records = work_dir.parent.glob(f'*/{RECORD_NAME}')
    for path in sorted(records, key=lambda path: path.stat().st_mtime, reverse=True):
        # The damaged record of another run is no reason to refuse this one.
        with suppress(UserError):
            record = read_record(path.parent)
            if record and path.parent != work_dir and _work_on_an_image(record.settings) == wanted:
                yield path.parent, record.settings


def same_stage(settings: Settings, images: Mapping[str, int]) -> tuple[int, int] | None:
    """Returns begin and end of the stage of a run that has these images in a batch.

    Args:
        settings: What determines the run.
        images: Source of images to their number.

    Returns:
        Iterations; ``None`` where no stage of the run has such batches.
    """
    keys = [key for key in settings if key.startswith(_STAGES)]
    for name in dict.fromkeys(key.removeprefix(_STAGES).split('.')[0] for key in keys):
        prefix = f'{_STAGES}{name}.images.'
        found = {
            key.removeprefix(prefix): count
            for key, count in settings.items()
            if key.startswith(prefix)
        }
        if found == dict(images):
            return settings[f'{_STAGES}{name}.begin'], settings[f'{_STAGES}{name}.end']
    return None


def _work_on_an_image(settings: Settings) -> Settings:
    return {
        key: value
        for key, value in settings.items()
        if (key.startswith('model.') and not key.endswith('.num_classes'))
        or (key.startswith('train_dataloader.') and '.pipeline.' in key)
        or key == _FILTER_MODE
        or key == 'optim_wrapper.type'
    }
