"""Times what computes in bfloat16 where the processor is faster in it, in both precisions.

A training step of the diffusion model and CLIP's frozen image tower, in float32 and bfloat16, which
take turns in one process. Weights and inputs are random, since only the time counts. Prints seconds
and ratios, and writes json.

Example:
    python tools/benchmark_half_precision.py configs/diffusion/defect_inpaint_neu_40pct.py \
        --out docs/results/half_precision_cpu.json
"""

from __future__ import annotations

import argparse
import copy
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import timm
import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope

import mmdsym  # noqa: F401  (checks versions)
from mmdsym.atomic_file import write_json
from mmdsym.benchmark.hardware import commit, hardware, versions
from mmdsym.benchmark.timing import StepTime, measure_in_turn, median, median_ratio
from mmdsym.clip.folded import Folded
from mmdsym.command_line import add_config_options, read_config
from mmdsym.errors import exit_on_user_error
from mmdsym.half_precision import (
    SWITCH,
    bfloat16_is_faster,
    has_bfloat16_unit,
    time_of_bfloat16,
)
from mmdsym.registry import MODELS

PRECISIONS = {'float32': False, 'bfloat16': True}


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='e.g. configs/diffusion/defect_inpaint_neu_40pct.py')
    parser.add_argument('--classes', type=int, default=6, help='classes of the data (6)')
    parser.add_argument('--regions', type=int, default=16, help='in a diffusion step (16)')
    parser.add_argument('--tower', default='efficientnet_lite0', help='timm model of CLIP')
    parser.add_argument('--crops', type=int, default=48, help='crops shown to CLIP (48)')
    parser.add_argument('--crop-size', type=int, default=112, help='side of a crop (112)')
    parser.add_argument('--rounds', type=int, default=9, help='measurements of each (9)')
    parser.add_argument('--out', type=Path, help='json to write')
    add_config_options(parser)
    return parser.parse_args()


@contextmanager
def precision(short: bool) -> Iterator[None]:
    """Takes the processor for one that is faster in bfloat16, or for one that is not."""
    told = os.environ.get(SWITCH, '')
    os.environ[SWITCH] = str(int(short))
    try:
        yield
    finally:
        os.environ[SWITCH] = told


def diffusion_step(config: ConfigDict, regions: int, classes: int) -> Callable[[], None]:
    """Returns a function that runs the model forward and backward once."""
    model = MODELS.build({**config, 'num_classes': classes}).train()
    side, channels = config.denoiser.crop_size, config.denoiser.channels
    image = torch.randint(0, 256, (regions, channels, side, side), dtype=torch.uint8)
    region = torch.zeros(regions, 1, side, side, dtype=torch.uint8)
    region[:, :, side // 4 : -side // 4, side // 4 : -side // 4] = 255
    label = torch.arange(regions) % classes

    def step() -> None:
        model(image, region, region, label, mode='loss')['loss'].backward()
        model.zero_grad()

    return step


def tower_step(tower: torch.nn.Module, crops: torch.Tensor, short: bool) -> Callable[[], None]:
    """Returns a function that embeds the crops, with the tower folded for one precision."""
    folded = Folded(copy.deepcopy(tower))
    with precision(short):
        folded(crops)
    return lambda: folded(crops)


def within(short: bool, step: Callable[[], None]) -> Callable[[], None]:
    """Returns the step, run in one precision."""

    def run() -> None:
        with precision(short):
            step()

    return run


def as_rows(times: Mapping[str, list[StepTime]]) -> dict[str, dict[str, float]]:
    """Returns median seconds and the median of the rounds' ratios to float32."""
    return {
        name: dict(
            seconds=round(median(spent).wall, 4),
            ratio=round(median_ratio(spent, times['float32']).wall, 3),
        )
        for name, spent in times.items()
    }


@exit_on_user_error
def main() -> None:
    """Measures, prints and writes."""
    args = parse_arguments()
    cfg = read_config(args)
    init_default_scope(cfg.default_scope)
    step = diffusion_step(cfg.model, args.regions, args.classes)
    tower = timm.create_model(args.tower, num_classes=0).eval()
    crops = torch.randn(args.crops, 3, args.crop_size, args.crop_size)
    crops = crops.contiguous(memory_format=torch.channels_last)
    report = dict(
        config=args.config,
        regions=args.regions,
        tower=args.tower,
        crops=args.crops,
        crop_size=args.crop_size,
        threads=torch.get_num_threads(),
        has_unit=has_bfloat16_unit(),
        chosen='bfloat16' if bfloat16_is_faster() else 'float32',
        matrix_product=round(time_of_bfloat16(), 3),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        commit=commit(),
        hardware=hardware(),
        versions=versions(),
        diffusion_step=as_rows(
            measure_in_turn({n: within(s, step) for n, s in PRECISIONS.items()}, args.rounds)
        ),
        clip_tower=as_rows(
            measure_in_turn(
                {n: tower_step(tower, crops, s) for n, s in PRECISIONS.items()}, args.rounds
            )
        ),
    )
    print(json.dumps(report, indent=1))
    if args.out:
        write_json(args.out, report)


if __name__ == '__main__':
    main()
