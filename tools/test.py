"""Evaluates a checkpoint on the test data of its config, in the manner of MMDetection."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmengine.config import Config

import mmdsym  # noqa: F401  (checks versions and lets torch read checkpoints)
from mmdsym.command_line import add_run_arguments, build_runner, read_config
from mmdsym.config_faults import config_faults_told
from mmdsym.errors import UserError, exit_on_user_error
from mmdsym.output_place import require_writable
from mmdsym.test_time_views import see_all_orientations


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
    parser.add_argument(
        '--tta',
        action='store_true',
        help='look at each image in its eight orientations (mirrored, turned) and fuse what is '
        'found: better boxes, eight times the work',
    )
    parser.add_argument('--out', metavar='PICKLE', help='also save the predictions')
    parser.add_argument('--show-dir', metavar='FOLDER', help='also draw the predictions')
    add_run_arguments(parser)
    return parser.parse_args()


def load_config(args: argparse.Namespace) -> Config:
    """Returns the config with what the command line says merged in.

    Raises:
        UserError: The config is missing, or has no teacher and student to choose from.
    """
    cfg = read_config(args)
    cfg.load_from, cfg.resume = args.checkpoint, False
    if args.work_dir is None:
        # Apart from the logs of the training, from which reports and plans are made.
        cfg.work_dir = str(Path(cfg.work_dir) / 'tests')
    if args.which:
        if 'detector' not in cfg.model:
            raise UserError(
                f'{args.config} trains a plain detector, which has no {args.which}: leave out '
                '--which.'
            )
        cfg.model.semi_test_cfg = dict(predict_on=args.which)
    if args.tta:
        see_all_orientations(cfg)
    if args.out:
        if not args.out.endswith(('.pkl', '.pickle')):
            raise UserError(f'--out {args.out} is to be a pickle: name it .pkl.')
        if Path(args.out).exists():
            raise UserError(f'--out {args.out} exists: move it away, or name another file.')
        require_writable(Path(args.out).parent)
        evaluators = cfg.test_evaluator
        evaluators = evaluators if isinstance(evaluators, list) else [evaluators]
        cfg.test_evaluator = [*evaluators, dict(type='DumpResults', out_file_path=args.out)]
    if args.show_dir:
        cfg.default_hooks.visualization.update(draw=True, test_out_dir=args.show_dir)
    return cfg


@exit_on_user_error
def main() -> None:
    """Tests."""
    args = parse_args()
    with config_faults_told(args.config):
        build_runner(load_config(args)).test()


if __name__ == '__main__':
    main()
