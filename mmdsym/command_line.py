"""What the tools that run a config have in common."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmdsym.config_checks import check_options
from mmdsym.config_faults import config_faults_told, in_one_line
from mmdsym.config_options import ConfigOptions
from mmdsym.errors import UserError


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments with which MMDetection's tools run a config."""
    parser.add_argument('--work-dir', help='where logs and checkpoints go')
    add_config_options(parser)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Adds what overrides settings of a config; a tool that runs nothing needs no more."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. split=20pct_seed1',
    )
    # What else a config is run with, for tools that do not ask for it.
    parser.set_defaults(work_dir=None, launcher='none', local_rank=0)


def read_config(args: argparse.Namespace) -> Config:
    """Returns the config that ``args.config`` names, with the common arguments merged in.

    Raises:
        UserError: There is no such file, or it cannot be read.
    """
    if not Path(args.config).is_file():
        raise UserError(f'there is no config {args.config}: see the folder configs/.')
    # torchrun sets it itself; older launchers pass it as an argument.
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    with config_faults_told(args.config):
        cfg = _parsed(Path(args.config))
        check_options(args.cfg_options or {}, cfg)
        cfg.merge_from_dict(args.cfg_options or {})
    cfg.launcher = args.launcher
    default = Path('work_dirs') / Path(args.config).stem
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(default)
    return cfg


def _parsed(path: Path) -> Config:
    try:
        return Config.fromfile(path)
    except UserError:
        raise
    # A config is a program: whatever is wrong with it, its line helps more than our traceback.
    except Exception as error:
        raise UserError(
            f'{path} cannot be read as a config ({in_one_line(error)}): correct it.'
        ) from error


def build_runner(cfg: Config) -> Runner:
    """Returns the runner that a config asks for, MMEngine's own by default."""
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def train(cfg: Config, goes_on: bool = False, checkpoint: str | None = None) -> None:
    """Trains a config.

    The config that it leaves in the work folder does not say where this start went on, so that
    it trains the same again in another folder.

    Args:
        cfg: The config with its work folder.
        goes_on: Whether to go on from a checkpoint.
        checkpoint: That one; by default the last in the work folder.
    """
    from mmdsym.engine import DSYMRunner

    asked = dict(resume=cfg.get('resume', False), load_from=cfg.get('load_from'))
    if goes_on:
        cfg.resume, cfg.load_from = True, checkpoint
    runner = build_runner(cfg)
    if isinstance(runner, DSYMRunner):
        runner.keep_in_config(**asked)
    runner.train()
