"""Turns a data set into COCO jsons for semi-supervised training, checked and split.

Examples:
    python tools/prepare_dataset.py NEU-DET.zip --name neu_det
    python tools/prepare_dataset.py my_parts/ --name my_parts --unlabelled-dir more_images/
    python tools/prepare_dataset.py --demo
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdsym.datasets.preparation.archive import open_source  # noqa: E402
from mmdsym.datasets.preparation.assignment import assign_splits  # noqa: E402
from mmdsym.datasets.preparation.demo import open_demo  # noqa: E402
from mmdsym.datasets.preparation.prepare import Choices, prepare  # noqa: E402
from mmdsym.datasets.preparation.sources.read import LAYOUTS, read_source  # noqa: E402
from mmdsym.datasets.preparation.unlabelled import add_unlabelled  # noqa: E402
from mmdsym.errors import UserError, exit_on_user_error  # noqa: E402


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('source', type=Path, nargs='?', help='folder or zip with images and annotations')
    add('--name', help='name of the data set; it is written to OUT/NAME (demo: demo)')
    add('--out', type=Path, default=Path('data'), help='folder of all data sets (data)')
    add('--layout', choices=['auto', *LAYOUTS], default='auto', help='how to read it (auto)')
    add(
        '--split',
        nargs='+',
        default=['default'],
        help='default: as the source has it, NEU-DET 1..240 and 241..300; paper: the lists in '
        'SOURCE/splits; or a list file of training images and one of validation images',
    )
    add('--val-fraction', type=float, default=0.2, help='held out where nothing else says (0.2)')
    add('--fractions', type=float, nargs='+', default=[0.1, 0.2, 0.4, 1.0], help='labelled shares')
    add('--seeds', type=int, nargs='+', default=[0, 1, 2], help='one choice for each (0 1 2)')
    add('--calibration-fraction', type=float, default=0.15, help='share of the labelled (0.15)')
    add('--unlabelled-dir', type=Path, help='folder of further images without labels')
    add('--classes', nargs='+', help='class names: fixes their order, refuses any other')
    add('--fix', action='store_true', help='clip and drop what can be mended, and say so')
    add('--force', action='store_true', help='replace an existing data set that differs')
    add('--demo', action='store_true', help='generate a demo data set of steel defects')
    add('--demo-size', type=int, default=200, help='side of its images in pixels (200)')
    add('--demo-images', type=int, default=300, help='its size, a fifth of it validates (300)')
    return parser.parse_args(argv)


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    """Runs the command."""
    arguments = parse_arguments(argv)
    choices = Choices(arguments.fractions, arguments.seeds, arguments.calibration_fraction)
    name = data_set_name(arguments)
    if arguments.demo:
        with open_demo(arguments.demo_images, arguments.out, arguments.demo_size) as source:
            finish(arguments, name, source, choices)
        return
    if arguments.source is None:
        raise UserError('no source was given; name a folder or zip, or use --demo')
    with open_source(arguments.source, arguments.out) as root:
        source = read_source(root, arguments.layout, arguments.classes)
        assign_splits(source, arguments.split, arguments.val_fraction)
        finish(arguments, name, source, choices)


def finish(arguments: argparse.Namespace, name: str, source, choices: Choices) -> None:
    """Adds unlabelled images, writes the data set and says what became of it."""
    if arguments.unlabelled_dir is not None:
        add_unlabelled(source, arguments.unlabelled_dir)
    written = prepare(source, name, arguments.out, choices, arguments.fix, arguments.force)
    target = arguments.out / name
    print(f'prepared {target}' if written else f'{target} is already prepared; left as it is')


def data_set_name(arguments: argparse.Namespace) -> str:
    """The data set's name, which becomes a folder's.

    Raises:
        UserError: When it is missing or no plain folder name.
    """
    name = arguments.name or ('demo' if arguments.demo else None)
    if name is None:
        raise UserError('the data set needs a name; give one with --name')
    if not re.fullmatch(r'\w[\w.-]*', name):
        raise UserError(f'--name {name!r} is no plain folder name; use letters, digits, - and _')
    return name


if __name__ == '__main__':
    main()
