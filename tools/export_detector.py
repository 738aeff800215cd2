"""Writes the teacher (or student) of a run as plain MMDetection config and checkpoint, or as ONNX.

Example:
    python tools/export_detector.py work_dirs/dsym_neu_40pct --out my_detector
    python tools/export_detector.py work_dirs/dsym_neu_40pct --out my_detector --onnx
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mmdsym.errors import UserError, exit_on_user_error

if TYPE_CHECKING:
    from mmdsym.deployment.onnx_export import OnnxExport
    from mmdsym.trained_run import TrainedRun

BELOW_THRESHOLD = '; no box was above the score threshold, so that those below it were compared'


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('run', help='work directory (its last checkpoint is taken) or checkpoint')
    parser.add_argument('--config', help='training config; default: the one beside the checkpoint')
    parser.add_argument('--which', choices=('teacher', 'student'), default='teacher')
    parser.add_argument('--out', required=True, help='folder for the files')
    parser.add_argument('--force', action='store_true', help='replace an earlier export')
    onnx = parser.add_argument_group('ONNX, in place of config and checkpoint')
    onnx.add_argument('--onnx', action='store_true', help='one file, suppression inside')
    onnx.add_argument(
        '--onnx-raw',
        action='store_true',
        help='boxes before suppression, which tools/infer_onnx.py then does; may join --onnx',
    )
    onnx.add_argument(
        '--fixed-size',
        action='store_true',
        help='one image of the test size at a time, instead of any batch of any size',
    )
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
    if arguments.onnx or arguments.onnx_raw:
        write_onnx(run, arguments)
        return
    if arguments.fixed_size:
        raise UserError('--fixed-size is for ONNX files; add --onnx or --onnx-raw.')
    exported = export_detector(run, arguments.out, arguments.which, arguments.force)
    seen = exported.comparison
    what = 'random image' if seen.random else 'test image'
    print(f'checkpoint read: {run.checkpoint_path}')
    print(f'config:          {exported.config_path}')
    print(f'checkpoint:      {exported.checkpoint_path}')
    print(
        f'checked:         {seen.boxes} boxes on {seen.images} {what}{"s" * (seen.images > 1)}, '
        f'largest difference {seen.difference:.1e}' + BELOW_THRESHOLD * seen.below_threshold
    )
    print(f"use:             init_detector('{exported.config_path}', '{exported.checkpoint_path}')")


def write_onnx(run: TrainedRun, arguments: argparse.Namespace) -> None:
    """Exports the ONNX files that were asked for, and says what was compared."""
    from mmdsym.deployment.onnx_export import export_onnx, target_of

    wanted = [True] * arguments.onnx + [False] * arguments.onnx_raw
    for inside in wanted:
        target_of(run, arguments.out, arguments.which, inside, arguments.force)
    print(f'checkpoint read: {run.checkpoint_path}')
    for inside in wanted:
        exported = export_onnx(
            run,
            arguments.out,
            arguments.which,
            suppress=inside,
            fixed_size=arguments.fixed_size,
            force=arguments.force,
        )
        report_onnx(exported)


def report_onnx(exported: OnnxExport) -> None:
    """Prints what was written, what it takes and what was compared."""
    seen = exported.parity
    what = 'test images' if exported.real else 'images of random noise, for want of test images'
    takes = (
        '{}x{} pixels, one image'.format(*exported.size) if exported.size else 'any batch, any size'
    )
    print(f'ONNX:            {exported.path} ({takes})')
    print(
        f'checked:         {seen.boxes} boxes on {seen.images} {what}, ONNX Runtime against '
        f'PyTorch: at most {seen.pixels:.1e} pixels and {seen.score:.1e} of score apart'
        + f'; {seen.at_cut} differ that overlap by just the threshold' * (seen.at_cut > 0)
        + BELOW_THRESHOLD * exported.below_threshold
    )
    print(f'use:             python tools/infer_onnx.py {exported.path} IMAGES --out boxes.json')


if __name__ == '__main__':
    main()
