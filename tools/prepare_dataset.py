"""Turns a data set into COCO jsons for semi-supervised training, checked and split."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdsym.datasets.preparation.prepare import Choices, prepare  # noqa: E402
from mmdsym.datasets.preparation.sources import neu  # noqa: E402
from mmdsym.errors import exit_on_user_error  # noqa: E402


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', type=Path)
    parser.add_argument('--name', required=True)
    parser.add_argument('--out', type=Path, default=Path('data'))
    parser.add_argument('--fix', action='store_true')
    parser.add_argument('--force', action='store_true')
    return parser.parse_args()


@exit_on_user_error
def main() -> None:
    arguments = parse_arguments()
    source = neu.read_original(arguments.source)
    neu.apply_default_split(source.images)
    written = prepare(
        source, arguments.name, arguments.out, Choices(), arguments.fix, arguments.force
    )
    print('done' if written else 'already prepared')


if __name__ == '__main__':
    main()
