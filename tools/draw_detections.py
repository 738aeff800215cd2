"""Draws a sheet of detections beside the ground truth."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmdsym.errors import UserError, exit_on_user_error


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('run', help='work directory, or a config')
    parser.add_argument('checkpoint', nargs='?', help='default: the last one of the work directory')
    parser.add_argument('--which', choices=('teacher', 'student'), default='teacher')
    parser.add_argument('--images', help="folder of images; default: the config's test set")
    parser.add_argument('--count', type=int, default=12, help='number of images')
    parser.add_argument(
        '--score-threshold',
        type=_threshold,
        default=None,
        metavar='auto|SCORE',
        help='auto (default): calibrated thresholds of the checkpoint, or else 0.3',
    )
    parser.add_argument('--out', help='PNG; default: detections.png beside the checkpoint')
    return parser.parse_args()


@exit_on_user_error
def main() -> None:
    """Draws, and says where the picture is."""
    arguments = parse_arguments()
    # Imported late, so that --help answers at once.
    from mmdsym.trained_run import load_run
    from mmdsym.visualization import draw_detections

    checkpoint, config = _checkpoint_and_config(arguments)
    replaces = arguments.out is not None and Path(arguments.out).exists()
    sheet = draw_detections(
        load_run(checkpoint, config),
        out=arguments.out,
        which=arguments.which,
        images=arguments.images,
        count=arguments.count,
        score_threshold=arguments.score_threshold,
    )
    print(sheet.title)
    replaced = ' (replaced)' if replaces else ''
    print(f'{sheet.detections} detections on {sheet.images} images: {sheet.path}{replaced}')


def _checkpoint_and_config(arguments: argparse.Namespace) -> tuple[Path, Path | None]:
    from mmdsym.trained_run import find_config

    run = Path(arguments.run)
    checkpoint = Path(arguments.checkpoint) if arguments.checkpoint else None
    if run.suffix != '.py':
        return (checkpoint, find_config(run)) if checkpoint else (run, None)
    # Where MMDetection's training command puts a config's results.
    folder = Path('work_dirs') / run.stem
    if not checkpoint and not folder.is_dir():
        raise UserError(f"'{folder}' does not exist; name a checkpoint after the config '{run}'.")
    if not checkpoint:
        return folder, None
    # The training left the config with paths and classes filled in.
    completed = checkpoint.parent / run.name
    return checkpoint, completed if completed.is_file() else run


def _threshold(text: str) -> float | None:
    if text == 'auto':
        return None
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'{text} is not in 0..1')
    return value


if __name__ == '__main__':
    main()
