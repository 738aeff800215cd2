"""Runs a trained detector on large images, tile by tile, and evaluates it in whole images.

Examples:
    python tools/predict_tiled.py work_dirs/sheets
    python tools/predict_tiled.py work_dirs/sheets --images line_3/ --out line_3.json
    python tools/predict_tiled.py work_dirs/sheets --whole 1333 --out whole.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmdsym.errors import UserError, exit_on_user_error
from mmdsym.output_place import require_place

if TYPE_CHECKING:
    from mmdsym.tiling import Tiling
    from mmdsym.tiling.whole_images import WholeImages
    from mmdsym.trained_run import TrainedRun


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('run', help='work directory, or a checkpoint in it')
    add('--config', help='training config; default: the one beside the checkpoint')
    add('--which', choices=('teacher', 'student'), default='teacher')
    images = parser.add_mutually_exclusive_group()
    images.add_argument('--images', type=Path, help='folder of images without ground truth')
    images.add_argument(
        '--ann',
        type=Path,
        help="COCO json of whole images; default: that of the run's data, val_whole.json",
    )
    add('--image-root', type=Path, help="where the json's file names start; default: its folder")
    add(
        '--tile',
        type=int,
        metavar='PIXELS',
        help='side of a tile; default: as in training',
    )
    add('--overlap', type=float, help='share that neighbours share; default: as in training')
    add('--merge', default='nms', help='nms (default), greedy-nmm or nmm')
    add('--merge-threshold', type=float, default=0.5, help='shared part of the smaller box (0.5)')
    add('--with-whole', action='store_true', help='also look at the whole image, shrunk')
    add(
        '--whole',
        type=int,
        nargs='?',
        const=0,
        metavar='LONG_SIDE',
        help='no tiles: the whole image, shrunk to what the run trains on or to this long side',
    )
    add(
        '--score',
        type=float,
        help='drop boxes with a lower score; default: with --images what the training calibrated '
        'for each class, or else 0.3; where the truth is known 0.05, as metrics need them all',
    )
    add('--out', type=Path, help='json; default: predictions_tiled.json beside the checkpoint')
    add('--force', action='store_true', help='replace that json')
    return parser.parse_args()


@exit_on_user_error
def main() -> None:
    """Predicts, writes a json and says how good it is where the truth is known."""
    arguments = parse_arguments()
    # Imported late, so that --help answers at once.
    from mmdsym.tiling.prediction import TiledPrediction, write_json
    from mmdsym.tiling.tiled_detector import Merging
    from mmdsym.trained_run import load_run

    run = load_run(arguments.run, arguments.config)
    out = arguments.out or run.checkpoint_path.parent / 'predictions_tiled.json'
    require_place(out, arguments.force)
    prediction = TiledPrediction(
        run,
        which=arguments.which,
        tiling=choose_tiling(arguments, run),
        merging=Merging(arguments.merge, arguments.merge_threshold),
        with_whole=arguments.with_whole,
        long_side=arguments.whole or None,
        **choose_scores(arguments, run),
    )
    document = prediction.run_on(choose_images(arguments, run))
    write_json(document, out)
    for name, value in document.get('metrics', {}).items():
        if name == 'bbox_mAP_50' or name.startswith('AP50/'):
            print(f'{name.replace("bbox_mAP_50", "mAP@0.5")}: {100 * value:.1f}')
    print(f'{len(document["annotations"])} boxes on {len(document["images"])} images: {out}')


def choose_tiling(arguments: argparse.Namespace, run: TrainedRun) -> Tiling | None:
    """The tiles that the command line asks for, else those of the training; None without tiles.

    Raises:
        UserError: Nobody says how large they are, or a number is out of its range.
    """
    from mmdsym.tiling import Tiling
    from mmdsym.tiling.whole_images import tiling_of

    if arguments.whole is not None:
        _refuse_beside_whole(arguments)
        return None
    trained = tiling_of(run)
    size = arguments.tile if arguments.tile is not None else trained and trained.size
    if size is None:
        raise UserError('the data of this run have no tiles; say their side with --tile.')
    overlap = arguments.overlap
    if overlap is None:
        overlap = trained.overlap if trained else 0.2
    return Tiling(size, overlap)


def _refuse_beside_whole(arguments: argparse.Namespace) -> None:
    if arguments.whole < 0:
        raise UserError(f'--whole {arguments.whole} is no side: give pixels, or no number at all.')
    given = (arguments.tile, arguments.overlap, arguments.with_whole or None)
    if any(one is not None for one in given):
        raise UserError('--whole looks at no tiles: leave out --tile, --overlap and --with-whole.')


def choose_scores(arguments: argparse.Namespace, run: TrainedRun) -> dict[str, Any]:
    """From which scores on boxes are written: as told, else as the training calibrated.

    Where the truth is known, low scores count for the metrics.
    """
    if arguments.score is not None:
        return dict(least_score=arguments.score)
    if arguments.images is None:
        return {}
    from mmdsym.visualization.detections import thresholds_of

    return dict(show_from_score=thresholds_of(run).tolist())


def choose_images(arguments: argparse.Namespace, run: TrainedRun) -> WholeImages:
    """The images that the command line names, else the held-out ones of the run's data.

    Raises:
        UserError: There are none, or their classes are others.
    """
    from mmdsym.tiling.whole_images import from_folder, from_json, validation_images

    if arguments.images is not None:
        return from_folder(arguments.images, run.classes)
    if arguments.image_root is not None and arguments.ann is None:
        raise UserError('--image-root is where the names in a json start: add --ann.')
    if arguments.ann is not None:
        root = arguments.image_root or arguments.ann.parent
        return from_json(arguments.ann, root, run.classes)
    return validation_images(run)


if __name__ == '__main__':
    main()
