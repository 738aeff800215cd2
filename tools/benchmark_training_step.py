"""Times a detector's training step in variants, alternating in one process.

Variants: memory layout (contiguous, channels_last) times frozen stages of a timm backbone, then
GroupNorm outside of channels_last, then bfloat16; and the teacher's forward pass with and without
autograd's bookkeeping, and in bfloat16. Images and boxes are random, since only the time counts.
Prints seconds per image and the ratio to the first variant, and writes json.

Example:
    python tools/benchmark_training_step.py configs/baselines/supervised_neu_40pct.py \
        --out docs/results/training_step_cpu.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor, nn

import mmdsym  # noqa: F401  (checks versions)
from mmdsym.atomic_file import write_json
from mmdsym.benchmark.hardware import commit, hardware, versions
from mmdsym.engine.bfloat16_optim_wrapper import prepare
from mmdsym.errors import UserError, exit_on_user_error
from mmdsym.models.cpu_layers import avoid_slow_norms
from mmdsym.models.total_loss import total_loss


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config of a plain detector with a TimmBackbone')
    parser.add_argument('--batch', type=int, default=8, help='images in a batch (8)')
    parser.add_argument('--size', type=int, default=224, help='side of the images (224)')
    parser.add_argument('--rounds', type=int, default=7, help='measurements per variant (7)')
    parser.add_argument('--out', type=Path, help='json to write')
    return parser.parse_args()


def random_samples(batch: int, size: int) -> list[DetDataSample]:
    """Returns data samples with two boxes each."""
    samples = []
    for _ in range(batch):
        shape = (size, size)
        sample = DetDataSample(
            metainfo=dict(
                img_shape=shape,
                ori_shape=shape,
                pad_shape=shape,
                batch_input_shape=shape,
                scale_factor=(1.0, 1.0),
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[0.1, 0.1, 0.5, 0.6], [0.4, 0.5, 0.9, 0.9]]) * size,
            labels=torch.zeros(2, dtype=torch.long),
        )
        samples.append(sample)
    return samples


@dataclass(frozen=True)
class Variant:
    """How a detector is laid out and computes.

    Attributes:
        channels_last: The memory layout of its weights.
        frozen_stages: Of the backbone; -1 for none.
        fast_norms: Whether GroupNorm leaves channels_last.
        bfloat16: Whether it computes in bfloat16, as ``mmdsym.Bfloat16OptimWrapper`` does.
    """

    channels_last: bool
    frozen_stages: int
    fast_norms: bool = False
    bfloat16: bool = False

    @property
    def name(self) -> str:
        """What the table says."""
        layout = 'channels_last' if self.channels_last else 'contiguous'
        extras = ', fast GroupNorm' * self.fast_norms + ', bfloat16' * self.bfloat16
        return f'{layout}, frozen_stages={self.frozen_stages}{extras}'

    def build(self, model_config: ConfigDict) -> nn.Module:
        """Returns the detector in this variant, in training mode."""
        config = deepcopy(model_config)
        config.backbone.update(pretrained=None, frozen_stages=self.frozen_stages)
        model = MODELS.build(config).train()
        if self.channels_last:
            model.to(memory_format=torch.channels_last)
        if self.fast_norms:
            avoid_slow_norms(model)
        if self.bfloat16:
            prepare(model)
        return model

    def precision(self) -> AbstractContextManager:
        """Returns the context of its forward pass."""
        return torch.autocast('cpu', torch.bfloat16, enabled=self.bfloat16)


AS_CONFIGURED = Variant(channels_last=True, frozen_stages=2, fast_norms=True)
VARIANTS = [
    *(Variant(layout, frozen) for layout in (False, True) for frozen in (-1, 2)),
    AS_CONFIGURED,
    replace(AS_CONFIGURED, bfloat16=True),
]


def training_step(
    variant: Variant, model_config: ConfigDict, images: Tensor, samples: list
) -> Callable[[], None]:
    """Returns a function that runs forward and backward once."""
    model = variant.build(model_config)

    def step() -> None:
        with variant.precision():
            losses = model.loss(images, samples)
        total, _ = model.parse_losses(losses)
        assert total_loss(losses) > 0
        total.backward()
        model.zero_grad()

    return step


def teacher_step(
    variant: Variant, model: nn.Module, images: Tensor, samples: list, autograd: bool
) -> Callable[[], None]:
    """Returns a function that predicts once."""
    model.eval()

    def step() -> None:
        with torch.set_grad_enabled(autograd), variant.precision():
            model.predict(images, samples, rescale=False)

    return step


def measure(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Returns the median seconds of each step; all take turns, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def as_table(medians: dict[str, float], batch: int) -> list[dict]:
    """Returns a row for each variant: seconds per image and the ratio to the first."""
    first = next(iter(medians.values()))
    return [
        {
            'variant': name,
            'seconds_per_image': round(value / batch, 4),
            'ratio': round(value / first, 3),
        }
        for name, value in medians.items()
    ]


@exit_on_user_error
def main() -> None:
    """Measures and prints."""
    args = parse_args()
    cfg = Config.fromfile(args.config)
    if cfg.model.get('backbone', {}).get('type') != 'mmdsym.TimmBackbone':
        raise UserError(f'{args.config} has no TimmBackbone whose stages could be frozen.')
    init_default_scope(cfg.default_scope)
    images = torch.randn(args.batch, 3, args.size, args.size)
    samples = random_samples(args.batch, args.size)
    steps = {
        variant.name: training_step(variant, cfg.model, images, samples) for variant in VARIANTS
    }
    plain, short = AS_CONFIGURED, VARIANTS[-1]
    one = plain.build(cfg.model).requires_grad_(True)
    teachers = {
        'teacher with autograd': teacher_step(plain, one, images, samples, True),
        'teacher without autograd': teacher_step(plain, one, images, samples, False),
        'teacher without autograd, bfloat16': teacher_step(
            short, short.build(cfg.model), images, samples, False
        ),
    }
    report = {
        'config': args.config,
        'batch': args.batch,
        'size': args.size,
        'threads': torch.get_num_threads(),
        'commit': commit(),
        'hardware': hardware(),
        'versions': versions(),
        'training_step': as_table(measure(steps, args.rounds), args.batch),
        'teacher': as_table(measure(teachers, args.rounds), args.batch),
    }
    print(json.dumps(report, indent=1))
    if args.out:
        write_json(args.out, report)


if __name__ == '__main__':
    main()
