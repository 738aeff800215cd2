"""Measures pseudo-labels of an unlabelled set: teacher score against CLIP and fused score.

The fusion is fitted on the run's calibration images; the truth is read when all scores are fixed.
Give a teacher that has not seen the calibration images, such as one trained on burn_in.json.

Example:
    python tools/analyze_pseudo_labels.py work_dirs/supervised_neu_40pct_burn_in \
        --ann data/neu_det/annotations/40pct_seed0/unlabelled.json \
        --truth data/neu_det/annotations/train.json \
        --clip data/neu_det/clip/40pct_seed0 --ablation --out work_dirs/pseudo_labels
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from mmdsym.errors import UserError, exit_on_user_error
from mmdsym.output_place import require_place


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('run', help='work directory, or a checkpoint')
    parser.add_argument('--config', help='its config; default: the one beside the checkpoint')
    parser.add_argument('--which', choices=('teacher', 'student'), default='teacher')
    parser.add_argument('--ann', type=Path, required=True, help='COCO json: unlabelled images')
    parser.add_argument('--truth', type=Path, required=True, help='COCO json: their ground truth')
    parser.add_argument(
        '--calibration', type=Path, help='labelled images to fit on; default: beside --ann'
    )
    parser.add_argument(
        '--labelled', type=Path, help='labelled images of burn-in; default: beside --ann'
    )
    parser.add_argument(
        '--images', type=Path, help="folder of all images; default: the data set's images/"
    )
    parser.add_argument('--clip', help='folder of an adapted CLIP model; default: ImageNet weights')
    parser.add_argument('--cache', help='folder to keep features of labelled crops in')
    parser.add_argument('--evidence', nargs='+', help='kinds to fuse; default: all')
    parser.add_argument('--ablation', action='store_true', help='also fuse each kind alone')
    parser.add_argument(
        '--fuse-views',
        action='store_true',
        help='let the teacher also look at each image turned, and fuse what it finds',
    )
    parser.add_argument('--max-boxes', type=int, default=3, help='boxes an image for CLIP (3)')
    parser.add_argument('--precision', type=float, default=0.8, help='where to compare (0.8)')
    parser.add_argument('--limit', type=int, help='only so many of the images, evenly spread')
    parser.add_argument('--foreign', type=Path, help='folder of images without any defect')
    parser.add_argument(
        '--make-foreign', type=int, metavar='COUNT', help='make the folder --foreign first'
    )
    parser.add_argument('--foreign-extra', type=Path, help='pictures of something else for it')
    parser.add_argument('--out', type=Path, required=True, help='folder for tables and curves')
    parser.add_argument('--force', action='store_true', help='replace earlier results there')
    return parser.parse_args()


def scorer_config(args: argparse.Namespace) -> dict:
    """Returns an adapted model, or one that knows classes from labelled crops alone."""
    prototypes = dict(
        ann_file=str(args.labelled),
        held_out_file=str(args.calibration),
        images_dir=str(args.images),
        cache_dir=args.cache,
    )
    if args.clip:
        return dict(type='mmdsym.CLIPScorer', weights=args.clip, prototypes=prototypes)
    return dict(
        type='mmdsym.CLIPScorer',
        features=('embedding', 'trunk'),
        evidence='prototypes',
        prototypes=prototypes,
    )


def complete(args: argparse.Namespace) -> None:
    """Fills in the layout of a prepared data set, and refuses what cannot work."""
    args.calibration = args.calibration or args.ann.parent / 'calibration.json'
    args.labelled = args.labelled or args.ann.parent / 'burn_in.json'
    args.images = args.images or args.ann.resolve().parents[2] / 'images'
    for path in (args.ann, args.truth, args.calibration, args.labelled):
        if not path.is_file():
            raise UserError(f'{path} does not exist: name the annotations of a prepared data set.')
    if args.make_foreign and not args.foreign:
        raise UserError('--make-foreign needs a folder to write to: add --foreign FOLDER.')
    if args.limit is not None and args.limit < 1:
        raise UserError(f'--limit {args.limit} leaves no image: give 1 or more.')
    if not 0 < args.precision <= 1:
        raise UserError(f'--precision {args.precision} is no share: give one above 0 up to 1.')
    require_place(args.out / 'pseudo_labels.md', args.force)


def evenly(entries: list, limit: int | None) -> list:
    """Returns at most so many entries, evenly spread over all of them."""
    count = min(len(entries), limit or len(entries))
    return [entries[index * len(entries) // count] for index in range(count)]


def saw_calibration(config: object) -> bool:
    """Says whether a run's config trains on the calibration images."""
    from mmdsym.config import walk

    train = config.get('train_dataloader') or {}
    names = {Path(str(entry.get('ann_file', ''))).name for entry in walk(train)}
    stages = (config.get('train_cfg') or {}).get('stages') or {}
    staged = any((stage.get('images') or {}).get('calibration') for stage in stages.values())
    return staged or bool(names & {'labelled.json', 'train.json'})


def report_foreign(removal: dict) -> str:
    """Returns the table of what each filter removes."""
    lines = [
        '| score | boxes on foreign images | removed | right boxes | cost | removed at 5 % cost |',
        '| --- | --- | --- | --- | --- | --- |',
    ]
    for name, row in removal.items():
        shares = [row.removed, row.cost, row.removed_at_allowed_cost]
        removed, cost, allowed = (f'{100 * share:.1f} %' for share in shares)
        lines.append(
            f'| {name} | {row.foreign_boxes} | {removed} | {row.true_boxes} | {cost} | {allowed} |'
        )
    return '\n'.join(lines)


@exit_on_user_error
def main() -> None:
    """Detects, fits, scores, and then measures."""
    args = parse_args()
    complete(args)
    # Imported late, so that --help answers at once.
    from mmdsym.clip.pseudo_label_analysis import (
        Analysis,
        image_list,
        predict_pool,
    )
    from mmdsym.evaluation import read_truth, write_report
    from mmdsym.evaluation.foreign_pool import images_in, make_foreign_pool
    from mmdsym.export import build_plain_detector
    from mmdsym.trained_run import load_run

    run = load_run(args.run, args.config)
    if saw_calibration(run.config):
        print(
            'warning: this run trains on calibration images in the end, which makes the fusion too '
            'sure of its teacher; a run on burn_in.json alone tells the truth.'
        )
    if args.make_foreign:
        made = (args.foreign, args.make_foreign, args.labelled, args.images, args.foreign_extra)
        make_foreign_pool(*made)
    foreign_paths = images_in(args.foreign) if args.foreign else []
    detector = build_plain_detector(run, args.which)
    analysis = Analysis(
        run.classes,
        scorer_config(args),
        dict(ann_file=str(args.labelled), images_dir=str(args.images)),
        ablation=args.ablation,
        evidence=args.evidence,
        crops=dict(max_boxes=args.max_boxes),
    )
    views = dict(turned=analysis.wants_turned_view, fused=args.fuse_views)
    labelled = []
    for ann_file in (args.calibration, args.labelled):
        paths, ids = image_list(ann_file, args.images)
        labelled.append(predict_pool(detector, paths, ids, **views))
        labelled.append(read_truth(ann_file, run.classes, ids))
    analysis.fit(*labelled)
    for name, judge in analysis.filters.items():
        print(f'{name}:')
        for line in judge.report_lines():
            print(f'  {line}')

    paths, ids = (evenly(entries, args.limit) for entries in image_list(args.ann, args.images))
    pool = predict_pool(detector, paths, ids, **views)
    analysis.score(pool)
    foreign = predict_pool(detector, foreign_paths, range(len(foreign_paths)), **views)
    analysis.score(foreign)

    # From here on nothing is chosen any more: the truth may be read.
    quality = analysis.measure(pool, args.truth, args.precision)
    extra = dict(
        checkpoint=run.checkpoint_path.name,
        images=len(pool.image_ids),
        views_fused=2 if args.fuse_views else 1,
        kept_evidence={name: judge.kept_kinds for name, judge in analysis.filters.items()},
    )
    if foreign_paths:
        removal = analysis.foreign_removal(pool, foreign, args.truth)
        extra |= dict(
            foreign_images=len(foreign_paths),
            foreign={name: asdict(row) for name, row in removal.items()},
        )
    paths = write_report(quality, args.out, extra)
    print(paths[0].read_text(encoding='utf-8'))
    if foreign_paths:
        print(report_foreign(removal))
    print(f'{len(pool.image_ids)} images: {", ".join(path.name for path in paths)} in {args.out}')


if __name__ == '__main__':
    main()
