"""Turns a data set into COCO jsons for semi-supervised training, checked and split.

Examples:
    python tools/prepare_dataset.py NEU-DET.zip --name neu_det
    python tools/prepare_dataset.py my_parts/ --name my_parts --unlabelled-dir more_images/
    python tools/prepare_dataset.py wide_sheets/ --name sheets --tile 640
    python tools/prepare_dataset.py --demo
    python tools/prepare_dataset.py corrected.json --merge data/my_parts --name my_parts_2
"""

from __future__ import annotations

import argparse
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdsym.datasets.preparation.archive import open_source  # noqa: E402
from mmdsym.datasets.preparation.assignment import assign_splits  # noqa: E402
from mmdsym.datasets.preparation.demo import open_demo, open_large_demo  # noqa: E402
from mmdsym.datasets.preparation.known_good import add_known_good  # noqa: E402
from mmdsym.datasets.preparation.merging.command import merge  # noqa: E402
from mmdsym.datasets.preparation.merging.merge import PREFERENCES  # noqa: E402
from mmdsym.datasets.preparation.merging.proposals import UNTOUCHED  # noqa: E402
from mmdsym.datasets.preparation.prepare import Choices, prepare  # noqa: E402
from mmdsym.datasets.preparation.records import Source  # noqa: E402
from mmdsym.datasets.preparation.sources.read import LAYOUTS, read_source  # noqa: E402
from mmdsym.datasets.preparation.tiles import TileChoice  # noqa: E402
from mmdsym.datasets.preparation.unlabelled import add_unlabelled  # noqa: E402
from mmdsym.errors import UserError, exit_on_user_error  # noqa: E402
from mmdsym.tiling import Tiling  # noqa: E402


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
    add('--known-good-dir', type=Path, help='folder of images that have no defect')
    add('--classes', nargs='+', help='class names: fixes their order, refuses any other')
    add('--merge', type=Path, metavar='PREPARED', help='SOURCE holds labels for this data set')
    add('--prefer', choices=PREFERENCES, help='what wins where a merge finds other labels')
    add('--suggested', type=Path, help='folder of tools/suggest_labels.py (beside SOURCE)')
    add(
        '--untouched',
        choices=UNTOUCHED,
        default='leave',
        help='what becomes of suggestions that came back as they were proposed (leave)',
    )
    add('--label-source', default='corrected', help='origin to note for merged labels (corrected)')
    add('--tile', type=int, metavar='PIXELS', help='cut large images into tiles of this side')
    add('--overlap', type=float, default=0.2, help='share of its side a tile shares (0.2)')
    add(
        '--visible-share',
        type=float,
        default=0.5,
        help='a box counts in a tile that shows this share of it (0.5)',
    )
    add(
        '--empty-tiles',
        type=float,
        default=0.1,
        help='share to keep of the tiles in which no box is known (0.1)',
    )
    add('--fix', action='store_true', help='clip and drop what can be mended, and say so')
    add('--force', action='store_true', help='replace an existing data set that differs')
    add('--demo', action='store_true', help='generate a demo data set of steel defects')
    add('--demo-size', type=int, default=200, help='side of its images in pixels (200)')
    add('--demo-large', action='store_true', help='the same, 3000x2000 with defects of 10 pixels')
    add('--demo-images', type=int, help='how many, a fifth validates (300, large ones 40)')
    return parser.parse_args(argv)


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    """Runs the command."""
    try:
        run(parse_arguments(argv))
    except OSError as error:
        raise UserError(
            f'{error.filename or "the data"} cannot be read or written '
            f'({error.strerror or error}); see to its rights and its disk'
        ) from error
    except MemoryError as error:
        raise UserError('memory ran out; give the data in smaller parts') from error


def run(arguments: argparse.Namespace) -> None:
    """Does what the command line says.

    Raises:
        UserError: When something about the arguments or the data is wrong.
    """
    choices = Choices(arguments.fractions, arguments.seeds, arguments.calibration_fraction)
    name = data_set_name(arguments)
    if arguments.demo or arguments.demo_large:
        with generate(arguments) as source:
            finish(arguments, name, source, choices)
        return
    if arguments.source is None:
        raise UserError('no source was given; name a folder or zip, or use --demo')
    if arguments.merge is not None:
        merge_export(arguments, name, choices)
        return
    if arguments.prefer is not None or arguments.suggested is not None:
        option = '--prefer' if arguments.prefer is not None else '--suggested'
        raise UserError(f'{option} is for labels that come back; name their data set with --merge')
    with open_source(arguments.source, arguments.out) as root:
        source = read_source(root, arguments.layout, arguments.classes)
        assign_splits(source, arguments.split, arguments.val_fraction)
        finish(arguments, name, source, choices)


def generate(arguments: argparse.Namespace) -> AbstractContextManager[Source]:
    """Opens the demo data that the command line asks for."""
    if arguments.demo_large:
        return open_large_demo(arguments.demo_images or 40, arguments.out)
    return open_demo(arguments.demo_images or 300, arguments.out, arguments.demo_size)


def choose_tiles(arguments: argparse.Namespace) -> TileChoice | None:
    """How images are cut, if they are."""
    if arguments.tile is None:
        return None
    tiling = Tiling(arguments.tile, arguments.overlap)
    return TileChoice(tiling, arguments.visible_share, arguments.empty_tiles)


def finish(arguments: argparse.Namespace, name: str, source: Source, choices: Choices) -> None:
    """Adds unlabelled and known-good images, writes the data set and says what became of it."""
    if arguments.unlabelled_dir is not None:
        add_unlabelled(source, arguments.unlabelled_dir)
    if arguments.known_good_dir is not None:
        add_known_good(source, arguments.known_good_dir)
    tiles = choose_tiles(arguments)
    written = prepare(source, name, arguments.out, choices, arguments.fix, arguments.force, tiles)
    tell(arguments.out / name, written)


def merge_export(arguments: argparse.Namespace, name: str, choices: Choices) -> None:
    """Merges an export, which may also be a single json, into a new data set.

    Raises:
        UserError: When it is to be cut into tiles.
    """
    if arguments.tile is not None:
        raise UserError('--merge keeps the tiles of its data set; leave out --tile')
    given: AbstractContextManager[Path] = open_source(arguments.source, arguments.out)
    if arguments.source.suffix.lower() == '.json' and arguments.source.is_file():
        given = nullcontext(arguments.source)
    with given as export:
        written = merge(
            export,
            arguments.merge,
            arguments.out / name,
            arguments.prefer,
            arguments.label_source,
            arguments.classes,
            choices.calibration_fraction,
            arguments.fix,
            arguments.force,
            arguments.suggested,
            arguments.untouched,
            arguments.source,
        )
    tell(arguments.out / name, written)


def tell(target: Path, written: bool) -> None:
    """Says what became of a data set."""
    print(f'prepared {target}' if written else f'{target} is already prepared; left as it is')


def data_set_name(arguments: argparse.Namespace) -> str:
    """The data set's name, which becomes a folder's.

    Raises:
        UserError: When it is missing or no plain folder name.
    """
    demo = 'demo_large' if arguments.demo_large else 'demo' if arguments.demo else None
    name = arguments.name or demo
    if name is None:
        raise UserError('the data set needs a name; give one with --name')
    if not re.fullmatch(r'\w[\w.-]*', name):
        raise UserError(f'--name {name!r} is no plain folder name; use letters, digits, - and _')
    return name


if __name__ == '__main__':
    main()
