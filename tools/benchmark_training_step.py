"""Times a detector's training step in variants, alternating in one process.

Variants: memory layout (contiguous, channels_last) times frozen stages of a timm backbone; and the
teacher's forward pass with and without autograd's bookkeeping. Images and boxes are random, since
only the time counts. Prints seconds per image and the ratio to the first variant, and writes json.

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
from copy import deepcopy
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
from mmdsym.errors import UserError, exit_on_user_error
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


def build(model_config: ConfigDict, frozen_stages: int, channels_last: bool) -> nn.Module:
    """Returns the detector in one variant, in training mode."""
    config = deepcopy(model_config)
    config.backbone.update(pretrained=None, frozen_stages=frozen_stages)
    model = MODELS.build(config).train()
    if channels_last:
        model.to(memory_format=torch.channels_last)
    return model


def training_step(model: nn.Module, images: Tensor, samples: list) -> Callable[[], None]:
    """Returns a function that runs forward and backward once."""

    def step() -> None:
        losses = model.loss(images, samples)
        total, _ = model.parse_losses(losses)
        assert total_loss(losses) > 0
        total.backward()
        model.zero_grad()

    return step


def teacher_step(
    model: nn.Module, images: Tensor, samples: list, autograd: bool
) -> Callable[[], None]:
    """Returns a function that predicts once."""
    model.eval()

    def step() -> None:
        with torch.set_grad_enabled(autograd):
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
        f'{"channels_last" if layout else "contiguous"}, frozen_stages={frozen}': training_step(
            build(cfg.model, frozen, layout), images, samples
        )
        for layout in (False, True)
        for frozen in (-1, 2)
    }
    teacher = build(cfg.model, 2, channels_last=True).requires_grad_(True)
    teachers = {
        'teacher with autograd': teacher_step(teacher, images, samples, True),
        'teacher without autograd': teacher_step(teacher, images, samples, False),
    }
    report = {
        'config': args.config,
        'batch': args.batch,
        'size': args.size,
        'threads': torch.get_num_threads(),
        'training_step': as_table(measure(steps, args.rounds), args.batch),
        'teacher': as_table(measure(teachers, args.rounds), args.batch),
    }
    print(json.dumps(report, indent=1))
    if args.out:
        write_json(args.out, report)


if __name__ == '__main__':
    main()
