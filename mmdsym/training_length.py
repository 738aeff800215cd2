"""One number, the iterations of a training, to which its schedule is stretched.

A config says how long its stages, ramps and warm-up are. ``iterations`` asks for another length of
the whole: each of them keeps its share of it, and so does the interval of validation. How often a
run calibrates, saves and logs stays as it is.
"""

from __future__ import annotations

from mmengine.config import Config

from mmdsym.errors import UserError
from mmdsym.images_per_step import DONE, scale_lengths
from mmdsym.stages import StageSchedule


def iterations_of(cfg: Config) -> int | None:
    """Returns how many iterations a config trains; ``None`` where it counts epochs, or none."""
    loop = cfg.get('train_cfg') or {}
    if loop.get('stages'):
        return StageSchedule(loop['stages']).max_iters
    return loop.get('max_iters')


def follow_iterations(cfg: Config) -> None:
    """Stretches the schedule to what ``cfg.iterations`` asks for.

    Args:
        cfg: Changed in place; left as it is without that setting, or when it follows already.

    Raises:
        UserError: The number is none, or the config does not count iterations.
    """
    wanted = cfg.get('iterations')
    # With `images_per_step`, fewer iterations may stand for this number already.
    if wanted is None or cfg.get(DONE) is not None:
        return
    if not isinstance(wanted, int) or wanted < 1:
        raise UserError(f'iterations is {wanted!r}: give a whole number from 1.')
    present = iterations_of(cfg)
    if present is None:
        raise UserError(
            f'{cfg.filename} sets iterations but does not train by iterations: leave it out.'
        )
    scale_lengths(cfg, present / wanted)
