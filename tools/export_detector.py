"""Writes the teacher (or student) of a run as a plain MMDetection config and checkpoint."""

from __future__ import annotations

import argparse

from mmdsym.errors import exit_on_user_error


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('run', help='work directory (its last checkpoint is taken) or checkpoint')
    parser.add_argument('--config', help='training config; default: the one beside the checkpoint')
    parser.add_argument('--which', choices=('teacher', 'student'), default='teacher')
    parser.add_argument('--out', required=True, help='folder for the two files')
    parser.add_argument('--force', action='store_true', help='replace an earlier export')
    return parser.parse_args()


@exit_on_user_error
def main() -> None:
    """Exports, and proves that the export predicts the same."""
    arguments = parse_arguments()
    # Imported late, so that --help answers at once.
    from mmdsym.export import export_detector
    from mmdsym.trained_run import load_run

    run = load_run(arguments.run, arguments.config)
    if not run.is_pair:
        print(f'{run.config_path} declares one plain detector: it is exported as it is.')
    exported = export_detector(run, arguments.out, arguments.which, arguments.force)
    seen = exported.comparison
    what = 'random image' if seen.random else 'test image'
    print(f'checkpoint read: {run.checkpoint_path}')
    print(f'config:          {exported.config_path}')
    print(f'checkpoint:      {exported.checkpoint_path}')
    print(
        f'checked:         {seen.boxes} boxes on {seen.images} {what}{"s" * (seen.images > 1)}, '
        f'largest difference {seen.difference:.1e}'
        + ('; no box was above the score threshold' if not seen.boxes else '')
    )
    print(f"use:             init_detector('{exported.config_path}', '{exported.checkpoint_path}')")


if __name__ == '__main__':
    main()
