"""Trains a detector from a config, in the manner of MMDetection's tools/train.py.

Where the config declares parts, such as a diffusion model, what is missing of them is made first;
the networks are tested and exported, and a report is written, as the config says.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import get_rank

import mmdsym  # noqa: F401  (checks versions and lets torch read checkpoints)
from mmdsym.command_line import add_run_arguments, read_config, train
from mmdsym.config_faults import config_faults_told
from mmdsym.errors import UserError, exit_on_user_error
from mmdsym.half_precision import require_precision


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, e.g. configs/dsym_neu_40pct.py')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint; without a value, from the latest of the work folder',
    )
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate to the batch size'
    )
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='say what would be made, reused and trained, and how long it would take; then end',
    )
    parser.add_argument(
        '--with-baseline',
        action='store_true',
        help='also train a supervised run of equal length, in WORK_DIR/baseline, and say how far '
        'the teacher lies above or below it',
    )
    add_run_arguments(parser)
    return parser.parse_args()


def load_config(args: argparse.Namespace) -> Config:
    """Returns the config with what the command line says merged in.

    Raises:
        UserError: The config file is missing, --auto-scale-lr has nothing to scale by, or mixed
            precision is asked for without a GPU.
    """
    cfg = read_config(args)
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.loss_scale = 'dynamic'
    if 'optim_wrapper' in cfg:
        require_precision(cfg.optim_wrapper)
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise UserError(
                f'{args.config} does not say for which batch size its learning rate is: add '
                'auto_scale_lr = dict(base_batch_size=...).'
            )
        cfg.auto_scale_lr.enable = True
    return cfg


def train_alone(cfg: Config, resume: str | None) -> None:
    """Trains a config that needs nothing before and wants nothing after it.

    Raises:
        UserError: The work folder holds another run, or another process trains in it.
    """
    from mmdsym.config import complete_config
    from mmdsym.engine.processes import start_processes
    from mmdsym.pipeline.starts import note_start, validation_of
    from mmdsym.pipeline.work_folder import claimed

    work_dir = Path(cfg.work_dir)
    if not resume and (work_dir / 'last_checkpoint').exists():
        raise UserError(
            f'{work_dir} holds the checkpoints of an earlier run: go on with --resume, name '
            'another --work-dir, or remove it.'
        )
    start_processes(cfg.get('launcher', 'none'), (cfg.get('env_cfg') or {}).get('dist_cfg'))
    # One process speaks for all ranks.
    with claimed(work_dir) if get_rank() == 0 else nullcontext():
        if get_rank() == 0:
            validation = validation_of(complete_config(cfg))
            note_start(work_dir, _first_iteration(work_dir, resume), validation=validation)
        train(cfg, bool(resume), None if resume == 'auto' else resume)


def _first_iteration(work_dir: Path, resume: str | None) -> int:
    from mmdsym.pipeline.progress import iteration_of, iterations_done

    if not resume:
        return 0
    return iterations_done(work_dir) if resume == 'auto' else iteration_of(Path(resume))


@exit_on_user_error
def main() -> None:
    """Trains."""
    args = parse_args()
    cfg = load_config(args)
    # Imported late: it loads what paints and judges defects, which other configs do not need.
    whole = cfg.get('parts') or cfg.get('after_training') or args.dry_run
    whole = whole or args.with_baseline
    try:
        with config_faults_told(args.config):
            if not whole:
                train_alone(cfg, args.resume)
                return
            from mmdsym.pipeline.whole_run import WholeRun

            run = WholeRun(cfg, args.resume, args.with_baseline)
            if args.dry_run:
                print(run.plan())
            else:
                run.execute()
    except KeyboardInterrupt:
        how = 'the same command' if whole else 'the same command and --resume, without a checkpoint'
        print(f'interrupted: go on with {how}.', file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == '__main__':
    main()
