"""Times a trained detector in PyTorch, ONNX Runtime and OpenVINO, alternating in one process.

Writes json, and a Markdown table beside it. Times count only on a machine that does nothing else:
the load before is written down, and a busy machine is named as such.

Example:
    python tools/benchmark_inference.py work_dirs/dsym_neu_40pct --threads 2 \
        --out docs/results/latency_cpu.json
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
    parser.add_argument('--threads', type=int, default=2, help='threads of each runtime (2)')
    parser.add_argument('--rounds', type=int, default=15, help='measurements of each (15)')
    parser.add_argument('--images', type=int, default=8, help='test images in a round (8)')
    parser.add_argument('--out', type=Path, required=True, help='.json to write')
    parser.add_argument('--force', action='store_true', help='replace an earlier report')
    return parser.parse_args()


@exit_on_user_error
def main() -> None:
    """Measures, writes and prints."""
    arguments = parse_arguments()
    if arguments.out.suffix != '.json':
        raise UserError(f"the report is json, so that '{arguments.out}' must end in .json.")
    for path in (arguments.out, arguments.out.with_suffix('.md')):
        require_place(path, arguments.force)
    # Imported late, so that --help answers at once.
    from mmdsym.deployment.latency import as_markdown, measure_latency, write_report
    from mmdsym.trained_run import load_run

    run = load_run(arguments.run, arguments.config)
    report = measure_latency(
        run, arguments.which, arguments.threads, arguments.rounds, arguments.images
    )
    table = write_report(report, arguments.out)
    print(as_markdown(report))
    print(f'written: {arguments.out}, {table}')


if __name__ == '__main__':
    main()
