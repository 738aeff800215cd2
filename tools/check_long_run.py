"""Trains long on small images, and says whether memory, open files and pace stay what they were.

All hooks of the config take part; only its stages are replaced, by a short burn_in and a long joint
stage. The json tells memory, files and processor time over the run.

Example:
    python tools/prepare_dataset.py --demo --demo-size 96 --demo-images 120 --name demo_96
    python tools/check_long_run.py configs/baselines/teacher_student_neu_40pct.py \
        --out docs/results/long_run_cpu.json --work-dir work_dirs/long_run \
        --cfg-options data_root=data/demo_96/ image_size=96,96
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from mmengine.config import Config

import mmdsym  # noqa: F401  (checks versions and lets torch read checkpoints)
from mmdsym.atomic_file import write_json
from mmdsym.benchmark.hardware import hardware, versions
from mmdsym.benchmark.long_run import ResourceHook, as_rows, judge
from mmdsym.command_line import add_run_arguments, build_runner, read_config
from mmdsym.errors import UserError, exit_on_user_error

BURN_IN = 100


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config of a teacher-student training')
    parser.add_argument('--out', type=Path, required=True, help='json to write')
    parser.add_argument('--iterations', type=int, default=2000, help='of the joint stage (2000)')
    parser.add_argument('--interval', type=int, default=20, help='between two samples (20)')
    parser.add_argument('--warm-up', type=int, default=200, help='iterations not counted (200)')
    parser.add_argument('--images', type=int, default=2, help='of each source in a batch (2)')
    add_run_arguments(parser)
    return parser.parse_args()


def load_config(args: argparse.Namespace) -> Config:
    """Returns the config with its long stage.

    Raises:
        UserError: The config has no stages, the run is too short to be judged, or the work folder
            holds a run.
    """
    if args.iterations - args.warm_up < 11 * args.interval:
        raise UserError(
            f'{args.iterations} iterations with a warm-up of {args.warm_up} and a sample each '
            f'{args.interval} are too short to be judged: raise --iterations.'
        )
    cfg = read_config(args)
    if 'stages' not in cfg.train_cfg:
        raise UserError(
            f'{args.config} has no stages: name a config of a teacher-student training.'
        )
    if (Path(cfg.work_dir) / 'last_checkpoint').exists():
        raise UserError(f'{cfg.work_dir} holds a run already: name another --work-dir.')
    end, both = BURN_IN + args.iterations, dict(labelled=args.images, unlabelled=args.images)
    cfg.train_cfg.stages = dict(
        burn_in=dict(begin=0, end=BURN_IN, images=dict(labelled=args.images)),
        # So low that boxes of a detector which has learnt little count as well.
        joint=dict(begin=BURN_IN, end=end, images=both, thresholds=dict(target_precision=0.1)),
    )
    cfg.param_scheduler = []
    return cfg


@exit_on_user_error
def main() -> None:
    """Trains, judges and writes."""
    args = parse_args()
    cfg = load_config(args)
    runner = build_runner(cfg)
    hook = ResourceHook(args.interval)
    runner.register_hook(hook)
    runner.train()
    verdict = judge(hook.samples, BURN_IN + args.warm_up)
    report = dict(
        config=args.config,
        iterations=args.iterations,
        images=args.images,
        image_size=cfg.get('image_size'),
        hooks=[type(one).__name__ for one in runner.hooks],
        verdict=verdict,
        hardware=hardware(),
        versions=versions(),
        samples=as_rows(hook.samples),
    )
    write_json(args.out, report)
    print(json.dumps(verdict, indent=1))
    if not (
        verdict['memory_is_flat'] and verdict['files_are_constant'] and verdict['pace_is_kept']
    ):
        print('the run did not keep its memory, its files or its pace.', file=sys.stderr)
        raise SystemExit(1)


if __name__ == '__main__':
    main()
