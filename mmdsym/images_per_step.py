"""One number, the images of a step, from which batches, learning rate and lengths follow.

A schedule is written for some batch. ``images_per_step`` asks for another one: with ``k`` times as
many images in a step,

- each source keeps its share of a batch, and every source that had images keeps at least one;
- the learning rate is multiplied by ``sqrt(k)`` for optimizers that adapt it to each weight, such
  as Adam (Malladi et al., arXiv 2205.10287), and by ``k`` for SGD (Goyal et al., arXiv 1706.02677);
- stages, ramps, warm-up and the intervals of validation, calibration, checkpoints and the log have
  ``1 / k`` of their iterations, so that as many images are seen;
- the teacher's decay is raised to the power of ``k``, so that it remembers as many images.

For the number that a schedule was written for, all stays as it is.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping

from mmengine.config import Config
from mmengine.dist import get_world_size, is_distributed
from mmengine.registry import HOOKS

from mmdsym.errors import UserError
from mmdsym.stages import StageSchedule

DONE = 'schedule_written_for'
"""Top-level setting of a config whose schedule follows from its number already."""

_ADAPTIVE = ('adam', 'lion', 'rmsprop', 'adagrad', 'adadelta')


_COUNTING_HOOKS = ('CheckpointHook', 'LoggerHook')
"""Hooks of MMEngine whose interval counts iterations, as that of mmdsym's own does."""

_INTERVALS = ('interval', 'sheet_interval')


def processes_of(cfg: Config) -> int:
    """How many processes train together, also before they have found each other."""
    if is_distributed():
        return get_world_size()
    names = {'pytorch': 'WORLD_SIZE', 'slurm': 'SLURM_NTASKS', 'mpi': 'OMPI_COMM_WORLD_SIZE'}
    return int(os.environ.get(names.get(cfg.get('launcher'), ''), 1))


def images_per_device(cfg: Config) -> int | None:
    """Images in the largest batch on one device, or None where the config does not train."""
    stages = (cfg.get('train_cfg') or {}).get('stages')
    if stages is not None:
        return max(stage.batch_size for stage in StageSchedule(stages).stages)
    return (cfg.get('train_dataloader') or {}).get('batch_size')


def follow_images_per_step(cfg: Config, processes: int) -> None:
    """Changes batches, learning rate and lengths to what ``cfg.images_per_step`` asks for.

    Args:
        cfg: Changed in place; left as it is without that setting, and when it was changed before.
        processes: How many train together; they share the images of a step.

    Raises:
        UserError: The number cannot be shared, or something else scales the learning rate too.
    """
    wanted, done = cfg.get('images_per_step'), cfg.get(DONE)
    if done is not None:
        _refuse_another_number(cfg, wanted, done)
        return
    if wanted is None:
        return
    present = images_per_device(cfg)
    if present is None:
        raise UserError(
            f'{cfg.filename} sets images_per_step but trains nothing with a batch of its own: '
            'leave it out.'
        )
    if (cfg.get('auto_scale_lr') or {}).get('enable'):
        raise UserError(
            'images_per_step scales the learning rate already: leave out --auto-scale-lr.'
        )
    each = _share_of_one(wanted, processes)
    factor = wanted / present
    _scale_batches(cfg, each, each / present)
    scale_lengths(cfg, factor)
    _scale_intervals(cfg, factor)
    _scale_learning_rate(cfg, factor)
    _scale_teacher(cfg, factor)
    cfg[DONE] = dict(images_per_step=wanted, processes=processes)


def share_images(images: Mapping[str, int], total: int) -> dict[str, int]:
    """Shares out a batch among sources as before, by largest remainders.

    Args:
        images: Source to its images in the present batch.
        total: Images of the new one; no less than there are sources with images.

    Returns:
        Source to its images; their sum is ``total``, and none that had images has none.
    """
    present = sum(images.values())
    shares = {source: total * count / present for source, count in images.items()}
    counts = {source: max(int(share), int(images[source] > 0)) for source, share in shares.items()}
    while (left := total - sum(counts.values())) != 0:
        step = 1 if left > 0 else -1
        open_ones = [s for s in counts if images[s] > 0 and counts[s] + step > 0]
        most_off = max(open_ones, key=lambda source: step * (shares[source] - counts[source]))
        counts[most_off] += step
    return counts


def scale_stages(stages: Mapping[str, Mapping], per_device: float, factor: float) -> dict:
    """Returns stages with other batches and lengths.

    Args:
        stages: As a config declares them.
        per_device: By how much batches on one device grow.
        factor: By how much the images of a step grow, all devices together.

    Raises:
        UserError: A stage would have no iteration, or a batch less images than sources.
    """
    scaled = {}
    for name, stage in stages.items():
        stage = dict(stage)
        images = dict(stage['images'])
        sources = sum(count > 0 for count in images.values())
        total = round(sum(images.values()) * per_device)
        if total < sources:
            raise UserError(
                f'images_per_step leaves {total} images on a device for the {sources} sources of '
                f"stage '{name}': raise it."
            )
        begin, end = scale_steps(stage['begin'], factor), scale_steps(stage['end'], factor)
        if end <= begin:
            raise UserError(
                f"the schedule leaves stage '{name}' no iteration: lower images_per_step, raise "
                'iterations, or lengthen the stage.'
            )
        stage |= dict(begin=begin, end=end, images=share_images(images, total))
        if 'loss_weights' in stage:
            stage['loss_weights'] = {
                loss: _scale_ramp(weight, factor)
                for loss, weight in dict(stage['loss_weights']).items()
            }
        scaled[name] = stage
    return scaled


def scale_lengths(cfg: Config, factor: float) -> None:
    """Divides the iterations of stages, ramps, warm-up and the interval of validation.

    Args:
        cfg: Changed in place.
        factor: What they are divided by.

    Raises:
        UserError: A stage would have no iteration.
    """
    loop = cfg.train_cfg
    if loop.get('stages') is not None:
        loop.stages = scale_stages(loop.stages, 1.0, factor)
    for name in ('max_iters', 'val_interval'):
        if name in loop:
            loop[name] = max(scale_steps(loop[name], factor), 1)
    schedulers = cfg.get('param_scheduler') or []
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        if scheduler.get('by_epoch', True):
            continue
        for border in ('begin', 'end'):
            steps = scheduler.get(border)
            if isinstance(steps, int):
                scheduler[border] = max(scale_steps(steps, factor), min(steps, 1))


def scale_steps(steps: int, factor: float) -> int:
    """Iterations that see as many images when each step has ``factor`` times as many."""
    return round(steps / factor)


def learning_rate_factor(optimizer: str, factor: float) -> float:
    """By how much the learning rate grows with the images of a step."""
    adaptive = any(name in optimizer.lower() for name in _ADAPTIVE)
    return factor**0.5 if adaptive else factor


def _refuse_another_number(cfg: Config, wanted: object, done: Mapping) -> None:
    if wanted != done['images_per_step']:
        raise UserError(
            f'{cfg.filename} was written for images_per_step = {done["images_per_step"]}: change '
            'the number in the config that it was made of.'
        )


def _share_of_one(wanted: object, processes: int) -> int:
    if not isinstance(wanted, int) or wanted < 1:
        raise UserError(f'images_per_step is {wanted!r}: give a whole number from 1.')
    if wanted % processes:
        raise UserError(
            f'images_per_step = {wanted} cannot be shared by {processes} processes: give a '
            f'multiple of {processes}.'
        )
    return wanted // processes


def _scale_ramp(weight: object, factor: float) -> object:
    if not isinstance(weight, Mapping):
        return weight
    return dict(weight, iterations=scale_steps(weight.get('iterations', 0), factor))


def _scale_batches(cfg: Config, each: int, per_device: float) -> None:
    stages = cfg.train_cfg.get('stages')
    if stages is not None:
        # Lengths follow apart.
        cfg.train_cfg.stages = scale_stages(stages, per_device, 1.0)
        return
    cfg.train_dataloader.batch_size = each
    sampler = cfg.train_dataloader.get('sampler') or {}
    if 'batch_size' in sampler:
        sampler.batch_size = each


def _scale_intervals(cfg: Config, factor: float) -> None:
    """Scales how often hooks calibrate, save and log, also where a config leaves that to them."""
    if factor == 1:
        return
    for hook in [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or [])]:
        kind = str((hook or {}).get('type', ''))
        counts = kind in _COUNTING_HOOKS or kind.startswith('mmdsym.')
        hook_type = HOOKS.get(kind) if counts else None
        # An unknown one is told when it is built.
        if hook_type is None:
            continue
        known = inspect.signature(hook_type).parameters
        settings = {name: hook.get(name, known[name].default) for name in known}
        if settings.get('by_epoch') is True:
            continue
        for name in _INTERVALS:
            interval = settings.get(name)
            # 0 and below mean never.
            if isinstance(interval, int) and interval > 0:
                hook[name] = max(scale_steps(interval, factor), 1)


def _scale_learning_rate(cfg: Config, factor: float) -> None:
    optimizer = cfg.optim_wrapper.optimizer
    optimizer.lr *= learning_rate_factor(optimizer.type, factor)


def _scale_teacher(cfg: Config, factor: float) -> None:
    for hook in cfg.get('custom_hooks') or []:
        if hook.get('type') == 'mmdsym.TeacherUpdateHook' and 'decay' in hook:
            hook.decay = hook.decay**factor
