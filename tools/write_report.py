"""Writes the report of a run: one HTML page with its accuracy, course, examples and origin.

Example:
    python tools/write_report.py work_dirs/dsym_neu_40pct
"""

from __future__ import annotations

import argparse

from mmdsym.errors import exit_on_user_error


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('work_dir', help='work directory of a run; the report goes to its report/')
    parser.add_argument(
        '--force',
        action='store_true',
        help='go on where report/ holds files that no report wrote; the folder is kept under '
        'another name (an earlier report as such is replaced anyway)',
    )
    parser.add_argument('--config', help='default: the one that lies in the work directory')
    parser.add_argument(
        '--reference',
        metavar='WORK_DIR',
        help='supervised run to compare with; default: the best one on the same split that lies '
        'beside the work directory',
    )
    return parser.parse_args()


@exit_on_user_error
def main() -> None:
    """Writes, and says where the page is."""
    arguments = parse_arguments()
    # Imported late, so that --help answers at once.
    from mmdsym.report import read_warnings, write_report

    page = write_report(
        arguments.work_dir,
        force=arguments.force,
        config=arguments.config,
        reference=arguments.reference,
    )
    print(f'the report is {page}')
    for warning in read_warnings(page.parent):
        print(f'warning: {warning}')


if __name__ == '__main__':
    main()
