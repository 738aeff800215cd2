"""What a user writes into a config, checked before anything is made of it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmengine.config import Config

from mmdsym.class_prompts import require_prompts
from mmdsym.datasets import count_images
from mmdsym.errors import UserError

# Settings that need not stand in a config to be known: ours, and those of MMEngine's runner.
_KNOWN = (
    'activation_checkpointing',
    'background_prompts',
    'compile',
    'data_preprocessor',
    'efficient_conv_bn_eval',
    'experiment_name',
    'find_unused_parameters',
    'image_size',
    'images_per_step',
    'iterations',
    'load_from',
    'model_wrapper_cfg',
    'prompts',
    'resume',
    'split',
    'work_dir',
)
# Related words such as train_cfg and test_cfg are less alike than a word and its misspelling.
_ALIKE = 0.8


def check_options(options: Iterable[str], cfg: Config) -> None:
    """Refuses settings of a command line that look like a misspelling of one that is known.

    A setting that resembles none is taken for one that the user's own code reads.

    Args:
        options: Names such as ``split`` or ``model.detector.type``.
        cfg: The config that they shall change.

    Raises:
        UserError: One is misspelt; the message says what it could mean.
    """
    known = {*cfg, *_KNOWN}
    for option in options:
        name = option.split('.')[0]
        near = difflib.get_close_matches(name, known, n=1, cutoff=_ALIKE)
        if name not in known and near:
            raise UserError(
                f"--cfg-options sets '{name}', which {cfg.filename} does not have: did you mean "
                f"'{near[0]}'?"
            )


def square_image_size(cfg: Config) -> None:
    """Takes one number as ``image_size`` for both sides.

    Raises:
        UserError: It is neither one nor two whole numbers from 1.
    """
    size = cfg.get('image_size')
    if size is None:
        return
    sides = (size, size) if isinstance(size, int) else size
    if (
        not isinstance(sides, (list, tuple))
        or len(sides) != 2
        or any(type(side) is not int or side < 1 for side in sides)
    ):
        raise UserError(f'image_size is {size!r}: give two whole numbers, such as (224, 224).')
    cfg.image_size = tuple(sides)


def check_prompts(cfg: Config, classes: Sequence[str]) -> None:
    """Compares the classes of ``prompts`` with those of the data.

    Raises:
        UserError: One is no class of the data, or has no sentence.
    """
    prompts = cfg.get('prompts')
    if prompts:
        require_prompts(prompts, classes)


def require_images(cfg: Config) -> None:
    """Makes sure that stages find the labelled images that they take.

    Raises:
        UserError: There is none, as in a small share of few labels none is left to calibrate.
    """
    sources = (cfg.get('train_dataloader') or {}).get('dataset', {}).get('sources') or {}
    stages = (cfg.get('train_cfg') or {}).get('stages') or {}
    for name, stage in stages.items():
        for source in ('labelled', 'calibration'):
            entry = sources.get(source) or {}
            wanted = (stage.get('images') or {}).get(source)
            if not wanted or not isinstance(entry.get('ann_file'), str):
                continue
            path = Path(entry.get('data_root') or '') / entry['ann_file']
            if not count_images(path):
                raise UserError(
                    f"stage '{name}' takes {source} images, but {path} has none: label more, or "
                    'choose a split with a larger share of the labels.'
                )
