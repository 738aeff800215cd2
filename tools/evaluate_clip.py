"""Compares CLIP scorers by how they classify labelled crops and clean surface.

Example:
    python tools/evaluate_clip.py configs/clip/score_neu_40pct.py \
        --ann-file data/neu_det/annotations/40pct_seed0/calibration.json \
        --out work_dirs/clip_crops
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmengine.config import Config

import mmdsym  # noqa: F401  (checks versions and lets torch read checkpoints)
from mmdsym.atomic_file import as_json, write_file
from mmdsym.clip.crop_table import as_markdown, crops_per_class, evaluate_scorer
from mmdsym.clip.labelled_crops import read_labelled_crops
from mmdsym.config import complete_config
from mmdsym.config_options import ConfigOptions
from mmdsym.errors import UserError, exit_on_user_error
from mmdsym.registry import MODELS


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config with scorers and images_dir')
    parser.add_argument('--ann-file', required=True, help='COCO json of the crops to classify')
    parser.add_argument('--out', type=Path, required=True, help='OUT.json and OUT.md are written')
    parser.add_argument('--only', nargs='+', metavar='NAME', help='rows of the table; default all')
    parser.add_argument('--device', default='cpu', help='such as cuda:0')
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions, metavar='KEY=VALUE')
    parser.add_argument('--force', action='store_true', help='replace existing results')
    return parser.parse_args()


def load_config(args: argparse.Namespace) -> Config:
    """Returns the completed config.

    Raises:
        UserError: It is missing or no config of scorers, a row does not exist, or there are
            results that would be replaced.
    """
    if not Path(args.config).is_file():
        raise UserError(f'there is no config {args.config}: see the folder configs/clip/.')
    for path in outputs(args.out):
        if path.exists() and not args.force:
            raise UserError(f'{path} exists: name another --out, or replace it with --force.')
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    cfg = complete_config(cfg)
    for key in ('scorers', 'images_dir'):
        if key not in cfg:
            raise UserError(f'{args.config} has no {key}: see configs/clip/score_neu_40pct.py.')
    unknown = sorted(set(args.only or ()) - set(cfg.scorers))
    if unknown:
        raise UserError(f"there is no scorer '{unknown[0]}': use one of {sorted(cfg.scorers)}.")
    return cfg


def outputs(stem: Path) -> tuple[Path, Path]:
    """Returns the files to write: json and Markdown."""
    return Path(f'{stem}.json'), Path(f'{stem}.md')


@exit_on_user_error
def main() -> None:
    """Evaluates."""
    args = parse_args()
    cfg = load_config(args)
    crops = read_labelled_crops(args.ann_file, cfg.images_dir)
    results = {}
    for name in args.only or cfg.scorers:
        scorer = MODELS.build(cfg.scorers[name]).to(args.device)
        results[name] = evaluate_scorer(scorer, crops)
        print(f'{name}: {results[name].accuracy:.1%} of {len(crops.labels())} crops are right')
    counts = crops_per_class(crops)
    content = dict(
        ann_file=args.ann_file,
        crops=counts,
        scorers={name: result._asdict() for name, result in results.items()},
    )
    table = as_markdown(results, counts)
    for path, text in zip(outputs(args.out), (as_json(content), table), strict=True):
        write_file(path, text.encode())
    print(f'\n{table}')


if __name__ == '__main__':
    main()
