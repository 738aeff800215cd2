"""Measures what tiles are worth: one detector on tiles, and on whole images shrunk and full.

Writes json with mAP@0.5 in whole-image coordinates and the seconds of each image.

Example:
    python tools/benchmark_tiling.py work_dirs/supervised_demo_large \
        --out docs/results/large_images_cpu.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmdsym.errors import UserError, exit_on_user_error
from mmdsym.output_place import require_place


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('run', help='work directory (its last checkpoint is taken) or checkpoint')
    parser.add_argument('--config', help='training config; default: the one beside the checkpoint')
    parser.add_argument('--which', choices=('teacher', 'student'), default='teacher')
    parser.add_argument(
        '--long-sides',
        type=int,
        nargs='*',
        default=[1333, 3000],
        help='whole images are also shown scaled to these (1333 3000)',
    )
    parser.add_argument('--out', type=Path, required=True, help='.json to write')
    parser.add_argument('--force', action='store_true', help='replace an earlier report')
    return parser.parse_args()


@exit_on_user_error
def main() -> None:
    """Measures, writes and prints."""
    arguments = parse_arguments()
    require_place(arguments.out, arguments.force)
    if any(side < 32 for side in arguments.long_sides):
        raise UserError('--long-sides are pixels: give 32 or more each.')
    # Imported late, so that --help answers at once.
    from mmdsym.tiling.comparison import as_markdown, compare_with_whole_images
    from mmdsym.tiling.prediction import write_json
    from mmdsym.trained_run import load_run

    run = load_run(arguments.run, arguments.config)
    report = compare_with_whole_images(run, arguments.which, arguments.long_sides)
    write_json(report, arguments.out)
    print(as_markdown(report))
    print(f'written: {arguments.out}')


if __name__ == '__main__':
    main()
