"""Measures what suggested labels are worth: as many labels by suggestion and at random.

For each seed a detector is trained on a share of the labels. Then further labels are added, once
for the images that the detector suggests and once for images drawn at random; the hidden ground
truth of the training set plays the annotator. The detector is trained anew with each. What was
finished is kept: the same command goes on where it was interrupted.

Example:
    python tools/benchmark_label_suggestions.py --data-root data/neu_det --start 0.2 --add 0.05 \
        --seeds 0 1 2 --out work_dirs/label_suggestions
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
from pathlib import Path

import numpy as np
from mmengine.config import Config

import mmdsym  # noqa: F401  (registers the parts and lets torch read checkpoints)
from mmdsym.atomic_file import write_file, write_json
from mmdsym.command_line import build_runner
from mmdsym.config_options import ConfigOptions
from mmdsym.errors import UserError, exit_on_user_error
from mmdsym.labelling import suggest
from mmdsym.labelling.image_list import read_image_list
from mmdsym.trained_run import find_checkpoint, load_run

ARMS = ('suggested', 'random')
METRIC = 'coco/bbox_mAP_50'


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--config', default='configs/baselines/supervised_neu_20pct.py', help='supervised config')
    add('--data-root', type=Path, default=Path('data/neu_det'), help='prepared data set')
    add('--start', type=float, default=0.2, help='share of labels at the beginning (0.2)')
    add('--add', type=float, default=0.05, help='share of labels to add (0.05)')
    add('--seeds', type=int, nargs='+', default=[0, 1, 2], help='one repetition each (0 1 2)')
    add('--clip', help='folder of an adapted CLIP model to ask as well')
    add('--out', type=Path, required=True, help='folder for runs and results.json')
    add(
        '--cfg-options', nargs='+', action=ConfigOptions, metavar='KEY=VALUE', help='for the config'
    )
    return parser.parse_args()


def add_labels(labelled: dict, truth: dict, names: set[str]) -> dict:
    """Returns a labelled COCO document with further images and their boxes out of the truth.

    Args:
        labelled: COCO document of the labelled images.
        truth: COCO document with the boxes of all training images; ids mean the same in both.
        names: Files of the images to add.
    """
    new = [image for image in truth['images'] if image['file_name'] in names]
    ids = {image['id'] for image in new}
    return {
        'categories': labelled['categories'],
        'images': labelled['images'] + new,
        'annotations': labelled['annotations']
        + [row for row in truth['annotations'] if row['image_id'] in ids],
    }


def run_config(args: argparse.Namespace, labels: Path, folder: Path, seed: int) -> Config:
    """Returns the config of one training.

    Raises:
        UserError: The config is not that of a plain supervised training.
    """
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    if 'ann_file' not in cfg.train_dataloader.dataset:
        raise UserError(
            f'{args.config} does not train on one labelled list alone: name a supervised config, '
            'such as configs/baselines/supervised_neu_20pct.py.'
        )
    cfg.data_root = f'{args.data_root}/'
    cfg.train_dataloader.dataset.ann_file = str(labels)
    cfg.randomness = dict(cfg.get('randomness') or {}, seed=seed)
    cfg.work_dir = str(folder)
    cfg.experiment_name = '_'.join(folder.resolve().parts[-4:])
    # The config that a run of several processes left still names theirs.
    cfg.launcher = 'none'
    return cfg


def train_and_test(args: argparse.Namespace, labels: Path, folder: Path, seed: int) -> float:
    """Trains, or goes on with it, and returns mAP@0.5 on the validation images, in [0, 1].

    Raises:
        UserError: The folder holds a run of another config or of other labels.
    """
    cfg = run_config(args, labels, folder, seed)
    # Neither where nor how it runs, nor its name, makes another experiment.
    apart = ('work_dir', 'experiment_name', 'launcher')
    settings = {k: v for k, v in cfg.to_dict().items() if k not in apart}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    digest.update(labels.read_bytes())
    state, key = folder / 'benchmark.json', digest.hexdigest()
    known = json.loads(state.read_text()) if state.is_file() else {'key': key}
    if known['key'] != key:
        raise UserError(
            f'{folder} holds a run with other settings or labels: choose another --out, or remove '
            'it.'
        )
    if METRIC in known:
        return known[METRIC]
    write_file(state, json.dumps(known).encode())
    cfg.resume = (folder / 'last_checkpoint').is_file()
    # A visualizer of its own: one that writes into the folder of the run before would fail.
    cfg.visualizer = dict(type='Visualizer', name=f'{cfg.experiment_name}_train')
    build_runner(cfg).train()
    cfg.resume, cfg.load_from = False, str(find_checkpoint(folder))
    cfg.experiment_name += '_test'
    cfg.visualizer = dict(type='Visualizer', name=cfg.experiment_name)
    known[METRIC] = round(float(build_runner(cfg).test()[METRIC]), 5)
    write_file(state, json.dumps(known).encode())
    return known[METRIC]


def choose(args: argparse.Namespace, base: Path, split: Path, count: int, seed: int) -> dict:
    """Returns the names of images to label for each of :data:`ARMS`.

    Neither sees a label: the suggestions come from the base run and the images alone.
    """
    kept = base.parent / 'chosen.json'
    if kept.is_file():
        return json.loads(kept.read_text())
    images = args.data_root / 'images'
    unlabelled = read_image_list(split / 'unlabelled.json', images)
    labelled = read_image_list(split / 'labelled.json', images)
    scorer = dict(type='mmdsym.CLIPScorer', weights=args.clip) if args.clip else None
    found = suggest(load_run(base), unlabelled, labelled, count, scorer)
    names = sorted(image.name for image in unlabelled)
    drawn = np.random.default_rng(seed).choice(len(names), len(found.images), replace=False)
    chosen = {
        'suggested': [entry.image.name for entry in found.images],
        'random': sorted(names[index] for index in drawn),
    }
    write_file(kept, json.dumps(chosen, indent=1).encode())
    return chosen


def run_seed(args: argparse.Namespace, seed: int) -> dict[str, float]:
    """Returns mAP@0.5 before and after labels were added, in [0, 1]."""
    annotations = args.data_root / 'annotations'
    split = annotations / f'{100 * args.start:g}pct_seed{seed}'
    folder = args.out / f'seed{seed}'
    result = {'base': train_and_test(args, split / 'labelled.json', folder / 'base', seed)}
    truth = json.loads((annotations / 'train.json').read_text(encoding='utf-8'))
    count = max(1, round(args.add * len(truth['images'])))
    chosen = choose(args, folder / 'base', split, count, seed)
    labelled = json.loads((split / 'labelled.json').read_text(encoding='utf-8'))
    for arm in ARMS:
        labels = folder / f'{arm}.json'
        content = add_labels(labelled, truth, set(chosen[arm]))
        write_file(labels, json.dumps(content).encode())
        result[arm] = train_and_test(args, labels, folder / arm, seed)
    result['added_images'] = len(chosen['suggested'])
    return result


def summarise(by_seed: dict[int, dict[str, float]]) -> dict:
    """Returns means and spreads over seeds, and the gain over random in points of mAP@0.5."""
    gains = [100 * (r['suggested'] - r['random']) for r in by_seed.values()]
    summary = {'gain_over_random': _spread(gains)}
    for name in ('base', *ARMS):
        summary[name] = _spread([100 * result[name] for result in by_seed.values()])
    return summary


def _spread(values: list[float]) -> dict[str, float]:
    deviation = statistics.stdev(values) if len(values) > 1 else None
    mean = round(statistics.fmean(values), 2)
    return dict(mean=mean, deviation=None if deviation is None else round(deviation, 2))


def check(args: argparse.Namespace) -> None:
    """Refuses what cannot work, before hours are spent.

    Raises:
        UserError: A share is out of its range, or a list of the data set is missing.
    """
    if not (0 < args.start < 1 and 0 < args.add < 1):
        raise UserError('--start and --add are shares of the labels: give numbers between 0 and 1.')
    if not Path(args.config).is_file():
        raise UserError(f'there is no config {args.config}: see the folder configs/.')
    needed = [args.data_root / 'annotations/train.json']
    for seed in args.seeds:
        split = args.data_root / f'annotations/{100 * args.start:g}pct_seed{seed}'
        needed += [split / 'labelled.json', split / 'unlabelled.json']
    for path in needed:
        if not path.is_file():
            raise UserError(
                f'{path} does not exist: prepare the data with this share and seed '
                '(tools/prepare_dataset.py --fractions --seeds).'
            )


@exit_on_user_error
def main() -> None:
    """Runs all seeds and writes results.json after each."""
    args = parse_args()
    check(args)
    by_seed: dict[int, dict[str, float]] = {}
    for seed in args.seeds:
        by_seed[seed] = run_seed(args, seed)
        content = dict(
            config=args.config, start=args.start, add=args.add, by_seed=by_seed,
            summary=summarise(by_seed),
        )  # fmt: skip
        write_json(args.out / 'results.json', content)
        told = ', '.join(f'{name} {100 * by_seed[seed][name]:.1f}' for name in ('base', *ARMS))
        print(f'seed {seed}: mAP@0.5 {told}')
    print(json.dumps(summarise(by_seed), indent=1))


if __name__ == '__main__':
    main()
