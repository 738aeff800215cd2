"""Measures synthetic images against real labelled crops that nothing was trained on.

For each class: how often a classifier of real crops recognises them, their kernel distance to
real crops, with real against real as floor and copy-paste as rival, and how near they are to the
training crops, so that copying is seen.

Example:
    python tools/evaluate_synthesis.py work_dirs/synthesis/0123456789abcdef \
        --data data/neu_det --split 40pct_seed0 --out docs/results/synthesis_neu_40pct.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdsym.atomic_file import write_json
from mmdsym.config import complete_config
from mmdsym.diffusion.labelled_images import LabelledImages, read_labelled_images
from mmdsym.diffusion.measures import require_torchmetrics
from mmdsym.diffusion.synthesis_config import find_synthesis
from mmdsym.diffusion.synthesis_quality import (
    SynthesisQuality,
    count_held_out_sources,
    paint_rival,
    read_painted_crops,
)
from mmdsym.errors import UserError, exit_on_user_error
from mmdsym.output_place import require_place
from mmdsym.registry import DATASETS

NEAREST = ('percentile_1', 'percentile_10', 'median', 'mean')
SOURCES = {'real': 'real', 'synthetic': 'synthetic', 'copy_paste': 'copy-paste'}


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('synthesis', type=Path, help='folder of a cache, or a training config')
    parser.add_argument('--data', type=Path, required=True, help='folder of the prepared data')
    parser.add_argument('--split', default='40pct_seed0', help='labelled part of the data')
    parser.add_argument('--training', default='burn_in.json', help='what the classifier learns')
    parser.add_argument('--held-out', default='calibration.json', help='what it is compared with')
    parser.add_argument('--classifier', type=Path, help='file that keeps the fitted classifier')
    parser.add_argument('--no-rival', action='store_true', help='leave copy-paste out')
    parser.add_argument('--out', type=Path, required=True, help='json to write')
    parser.add_argument('--force', action='store_true', help='replace an existing json')
    return parser.parse_args()


def find_cache(synthesis: Path) -> Path:
    """Returns the folder of a cache; what a config describes is made if it is not there."""
    if synthesis.suffix != '.py':
        return synthesis
    if not synthesis.is_file():
        raise UserError(f'there is no config {synthesis}: see the folder configs/.')
    cfg = complete_config(Config.fromfile(synthesis))
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    return DATASETS.build({**find_synthesis(cfg), 'pipeline': []}).synthesis.folder


def read_images(data: Path, split: str, name: str) -> LabelledImages:
    """Reads labelled images of prepared data."""
    return read_labelled_images(
        dict(
            type='mmdsym.DefectDataset',
            data_root=f'{data}/',
            ann_file=f'annotations/{split}/{name}',
            data_prefix=dict(img='images/'),
        )
    )


def as_markdown(classes: dict[str, dict]) -> str:
    """Returns a table with a row for each class and source; distances times 1000.

    Of those to the nearest training crop stand the 1st and 10th percentile, median and mean.
    """
    nearest_of = 'nearest x1000: 1 %, 10 %, 50 %, mean'
    columns = ['class', 'crops of', 'number', 'accuracy %', 'KID x1000', nearest_of]
    rows = [columns, ['---'] * len(columns)]
    for name, sources in classes.items():
        for source, measured in sources.items():
            distance = measured.get('kernel_distance')
            nearest = measured.get('nearest_training')
            rows.append(
                [
                    name,
                    SOURCES[source],
                    str(measured['crops']),
                    _number(measured['accuracy'], 100),
                    _number(distance and distance['mean'], 1000),
                    ', '.join(_number(nearest[key], 1000) for key in NEAREST) if nearest else '-',
                ]
            )
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)


def _number(value: float | None, factor: float) -> str:
    return '-' if value is None else f'{factor * value:.1f}'


@exit_on_user_error
def main() -> None:
    """Writes the json, and prints it as a table."""
    args = parse_args()
    require_place(args.out, args.force)
    require_torchmetrics()
    held_out = read_images(args.data, args.split, args.held_out)
    training = read_images(args.data, args.split, args.training)
    folder = find_cache(args.synthesis)
    synthetic = read_painted_crops(folder)
    if synthetic.images.classes != training.classes:
        raise UserError(
            f'{folder} shows the classes {synthetic.images.classes}, but {args.data} has '
            f'{training.classes}: name the data that it was made from.'
        )
    seen = count_held_out_sources(folder, held_out)
    rival = None if args.no_rival else paint_rival(folder)
    quality = SynthesisQuality(training, held_out, args.classifier)
    classes = quality.report(synthetic, rival)
    results = dict(
        cache=folder.name,
        data=args.data.name,
        split=args.split,
        training=args.training,
        held_out=args.held_out,
        synthetic_images_made_from_held_out_ones=seen,
        classes=classes,
    )
    write_json(args.out, results)
    print(as_markdown(classes))
    if seen:
        print(
            f'Note: {seen} of the synthetic images were made from images that are held out here; '
            'that flatters them.'
        )


if __name__ == '__main__':
    main()
