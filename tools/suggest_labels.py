"""Says which unlabelled images to label next, and writes pre-labels for annotation programs.

Example:
    python tools/suggest_labels.py work_dirs/dsym_my_parts \
        --ann data/my_parts/annotations/100pct_seed0/unlabelled.json --out to_label --count 50
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmdsym.errors import UserError, exit_on_user_error


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('run', help='work directory, or a checkpoint')
    parser.add_argument('--config', help='its config; default: the one beside the checkpoint')
    parser.add_argument('--ann', type=Path, required=True, help='COCO json: unlabelled images')
    parser.add_argument(
        '--labelled', type=Path, help='COCO json: labelled images; default: beside --ann'
    )
    parser.add_argument(
        '--images', type=Path, help="folder of all images; default: the data set's images/"
    )
    parser.add_argument('--clip', help="folder of an adapted CLIP model; default: the run's own")
    parser.add_argument('--count', type=int, default=50, help='images to suggest (50)')
    parser.add_argument(
        '--score-threshold',
        type=float,
        help='score from which a box becomes a pre-label; default: calibrated, or else 0.3',
    )
    parser.add_argument(
        '--link',
        metavar='PREFIX',
        help="before the images' names in Label Studio's tasks (/data/local-files/?d=)",
    )
    parser.add_argument('--out', type=Path, required=True, help='folder to write to')
    parser.add_argument('--force', action='store_true', help='replace earlier suggestions there')
    return parser.parse_args()


def complete(args: argparse.Namespace) -> None:
    """Fills in the layout of a prepared data set, and refuses what cannot work.

    Raises:
        UserError: A file is missing, or a number is out of its range.
    """
    if not args.ann.is_file():
        raise UserError(f'{args.ann} does not exist: name the list of unlabelled images.')
    beside = args.ann.parent / 'labelled.json'
    if args.labelled is None and beside.is_file():
        args.labelled = beside
    if args.labelled is not None and not args.labelled.is_file():
        raise UserError(f'{args.labelled} does not exist: correct --labelled.')
    if args.images is None:
        args.images = next(
            (p / 'images' for p in args.ann.resolve().parents if (p / 'images').is_dir()), None
        )
    if args.images is None:
        raise UserError(f'no folder images/ lies above {args.ann}: name it with --images.')
    if args.count < 1:
        raise UserError(f'--count {args.count} leaves nothing to suggest: give at least 1.')
    if args.score_threshold is not None and not 0 <= args.score_threshold <= 1:
        raise UserError(f'--score-threshold {args.score_threshold:g} is outside 0..1: correct it.')


@exit_on_user_error
def main() -> None:
    """Looks, ranks and writes."""
    args = parse_args()
    complete(args)
    # Imported late, so that --help answers at once.
    from mmdsym.labelling import suggest, write_suggestions
    from mmdsym.labelling.image_list import read_image_list
    from mmdsym.labelling.label_studio import LINK
    from mmdsym.labelling.writing import refuse_to_overwrite
    from mmdsym.labelling.yolo import alike
    from mmdsym.trained_run import load_run

    refuse_to_overwrite(args.out, args.force)
    found = suggest(
        load_run(args.run, args.config),
        read_image_list(args.ann, args.images),
        read_image_list(args.labelled, args.images) if args.labelled else [],
        args.count,
        dict(type='mmdsym.CLIPScorer', weights=args.clip) if args.clip else None,
        args.score_threshold,
    )
    write_suggestions(found, args.out, LINK if args.link is None else args.link, args.force)
    for sentence in found.left_out:
        print(sentence)
    shared = alike(found)
    if shared:
        print(
            f'yolo/ has no labels of {", ".join(shared)}, whose names differ in the suffix alone.'
        )
    for entry in found.images[:10]:
        print(f'{entry.rank:4d}  {entry.score:.3f}  {entry.image.name}: {entry.reason}')
    print(f'{len(found.images)} of {found.looked_at} images are suggested in {args.out}')


if __name__ == '__main__':
    main()
