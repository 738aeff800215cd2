"""What a training iteration costs, method beside method on the same batches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from torch.profiler import ProfilerActivity, profile

from mmdsym.errors import UserError

from .batches import as_mmdetection_batch, draw_batches, joint_stage
from .memory import peak_memory_mib
from .timing import StepTime, measure_in_turn, median, median_ratio
from .training_iterations import TrainingIterations

FILTER_HOOK = 'mmdsym.CLIPPseudoLabelFilterHook'


class Variant(NamedTuple):
    """A method to measure.

    Attributes:
        name: Folder and name of its config, and whether the filter is on.
        config: A whole training config.
    """

    name: str
    config: Config

    @property
    def is_reference(self) -> bool:
        """Whether it is one of MMDetection's methods."""
        return not self.config.model.type.startswith('mmdsym.')


def read_variants(paths: Sequence[Path], options: dict) -> list[Variant]:
    """Reads configs; one with the CLIP filter becomes two variants, filter on and off.

    Args:
        paths: Training configs.
        options: Settings that override those of every config.

    Raises:
        UserError: A config does not exist.
    """
    variants = []
    for path in paths:
        if not path.is_file():
            raise UserError(f'there is no config {path}: correct its path.')
        cfg = Config.fromfile(path)
        cfg.merge_from_dict(options)
        name = f'{path.resolve().parent.name}/{path.stem}'
        if any(hook.type == FILTER_HOOK for hook in cfg.custom_hooks):
            variants.append(Variant(f'{name}, filter on', cfg))
            variants.append(Variant(f'{name}, filter off', _without_filter(cfg)))
        else:
            variants.append(Variant(name, cfg))
    return variants


def _without_filter(cfg: Config) -> Config:
    cfg = copy.deepcopy(cfg)
    for hook in cfg.custom_hooks:
        if hook.type == FILTER_HOOK:
            hook.update(mode='off', schedule=None)
    return cfg


class SpeedTest:
    """Variants that train on the same batches of one variant's joint stage.

    In each, the teacher is the student's copy, thresholds and filter are calibrated, and the
    weight of the unsupervised loss has reached its end. Unless batches are revisited, none comes
    twice, so that the filter finds no box that it remembers.

    Args:
        source: The DSYM variant that the batches come from.
        checkpoint: Of a detector, for all variants to start from; random weights without one.
        count: Number of batches.
        revisit: Whether each variant trains on all batches once before it is measured.

    Raises:
        UserError: The source has no stage with unlabelled images.
    """

    def __init__(
        self, source: Variant, checkpoint: Path | None, count: int, revisit: bool = False
    ) -> None:
        self.checkpoint = checkpoint
        self.revisit = revisit
        begin = _settled(source)
        self.batches = draw_batches(source.config, begin, count)
        self._first_batch = draw_batches(source.config, joint_stage(source.config).begin, 1)[0]

    def set_up(self, variant: Variant) -> TrainingIterations:
        """Returns the training of a variant, ready for the first batch."""
        training = TrainingIterations(
            variant.config, variant.name.replace('/', '_'), self.checkpoint
        )
        if variant.is_reference:
            training.go_to(1)
            return training
        training.go_to(joint_stage(variant.config).begin)
        training.step(copy.deepcopy(self._first_batch))
        training.go_to(_settled(variant))
        training.model.collect_statistics()
        return training

    def feed(self, variant: Variant, training: TrainingIterations) -> Callable[[], None]:
        """Returns a function that trains on the next batch at each call."""
        batches = copy.deepcopy(self.batches)
        if variant.is_reference:
            batches = [as_mmdetection_batch(batch) for batch in batches]
        for batch in copy.deepcopy(batches) if self.revisit else ():
            training.step(batch)
        waiting = iter(batches)
        return lambda: training.step(next(waiting))

    def measure(
        self, variants: Sequence[Variant], trainings: Sequence[TrainingIterations]
    ) -> dict[str, dict]:
        """Times variants in turn.

        Args:
            variants: What to measure.
            trainings: Of each variant, as :meth:`set_up` returns it.

        Returns:
            Name of the variant to its times, its ratios to MMDetection's methods, and what became
            of its pseudo-labels.
        """
        pairs = list(zip(variants, trainings, strict=True))
        steps = {variant.name: self.feed(variant, training) for variant, training in pairs}
        times = measure_in_turn(steps, len(self.batches) - 1)
        references = [variant.name for variant in variants if variant.is_reference]
        return {
            variant.name: {
                'median_seconds': _as_dict(median(times[variant.name])),
                'ratio_to': {
                    other: _as_dict(median_ratio(times[variant.name], times[other]))
                    for other in references
                },
                'seconds': [_as_dict(entry) for entry in times[variant.name]],
                **_describe_labels(training),
            }
            for variant, training in pairs
        }

    def peak_memory(self, variant: Variant) -> float:
        """Returns the peak of this process in MiB after a variant has trained on all batches."""
        step = self.feed(variant, self.set_up(variant))
        for _ in self.batches:
            step()
        return peak_memory_mib()

    def profile(self, variant: Variant, rows: int = 30) -> str:
        """Returns a table of the operations that cost most, after one batch to warm up."""
        step = self.feed(variant, self.set_up(variant))
        step()
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        with profile(activities=activities) as profiler:
            for _ in self.batches[1:]:
                step()
        key = 'self_cuda_time_total' if torch.cuda.is_available() else 'self_cpu_time_total'
        return profiler.key_averages().table(sort_by=key, row_limit=rows)


def _settled(variant: Variant) -> int:
    """The iteration at which the weight of the unsupervised loss has reached its end."""
    stage = joint_stage(variant.config)
    ramp = stage.loss_weights['unlabelled'].iterations
    # Behind the first iteration, which calibrates.
    return min(stage.begin + ramp + 1, stage.end - 1)


def _as_dict(times: StepTime) -> dict[str, float]:
    return {name: round(value, 4) for name, value in times._asdict().items()}


def _describe_labels(training: TrainingIterations) -> dict[str, float | bool]:
    if not hasattr(training.model, 'collect_statistics'):
        return {}
    statistics = training.model.collect_statistics()
    images = max(1, statistics.images)
    described: dict[str, float | bool] = {
        'kept_boxes_per_image': round(float(statistics.kept.sum()) / images, 3),
        'images_without_kept_box': round(statistics.unused_images / images, 3),
    }
    judge = training.model.scorer
    if hasattr(judge, 'crops'):
        asked, reused = judge.embedder.memory.take_counts()
        described['filter_asks_clip'] = bool(judge.crops.counts)
        described['crops_per_image'] = round(asked / images, 3)
        described['remembered_share'] = round(reused / max(1, asked), 3)
    for hook in training.runner.hooks:
        if hasattr(hook, 'share_of_time'):
            described['filter_share_of_time'] = round(hook.share_of_time, 4)
    return described
