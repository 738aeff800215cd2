"""Evaluates a checkpoint on the test data of its config, in the manner of MMDetection."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

import mmdsym  # noqa: F401  (checks versions and lets torch read checkpoints)
from mmdsym.errors import UserError, exit_on_user_error


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, or the one saved in the work folder')
    parser.add_argument('checkpoint', help='checkpoint to evaluate')
    parser.add_argument(
        '--which',
        choices=['teacher', 'student'],
        help='network of a DSYM checkpoint; by default what the config says, the teacher',
    )
    parser.add_argument('--work-dir', help='where the metrics go')
    parser.add_argument('--out', metavar='PICKLE', help='also save the predictions')
    parser.add_argument('--show-dir', metavar='FOLDER', help='also draw the predictions')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def load_config(args: argparse.Namespace) -> Config:
    """Returns the config with what the command line says merged in.

    Raises:
        UserError: The config is missing, or has no teacher and student to choose from.
    """
    if not Path(args.config).is_file():
        raise UserError(f'there is no config {args.config}: see the folder configs/.')
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    cfg.merge_from_dict(args.cfg_options or {})
    default = Path('work_dirs') / Path(args.config).stem
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(default)
    cfg.load_from, cfg.resume = args.checkpoint, False
    if args.which:
        if 'detector' not in cfg.model:
            raise UserError(
                f'{args.config} trains a plain detector, which has no {args.which}: leave out '
                '--which.'
            )
        cfg.model.semi_test_cfg = dict(predict_on=args.which)
    if args.out:
        evaluators = cfg.test_evaluator
        evaluators = evaluators if isinstance(evaluators, list) else [evaluators]
        cfg.test_evaluator = [*evaluators, dict(type='DumpResults', out_file_path=args.out)]
    if args.show_dir:
        cfg.default_hooks.visualization.update(draw=True, test_out_dir=args.show_dir)
    return cfg


@exit_on_user_error
def main() -> None:
    """Tests."""
    cfg = load_config(parse_args())
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    runner.test()


if __name__ == '__main__':
    main()
