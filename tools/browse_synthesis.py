"""Draws a contact sheet of synthetic defects beside real ones, per class and size."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from mmdsym.command_line import add_config_options, read_config
from mmdsym.errors import UserError, exit_on_user_error


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('cache', help='folder of a cache or of several, or a training config')
    parser.add_argument('--out', default='synthesis.png', help='PNG; default: synthesis.png')
    parser.add_argument('--pairs', type=_positive, default=1, help='rows for each class')
    parser.add_argument('--seed', type=int, default=0, help='chooses other examples')
    parser.add_argument(
        '--synthetic-only',
        action='store_true',
        help='painted regions alone; some may still show a real defect',
    )
    add_config_options(parser)
    return parser.parse_args()


@exit_on_user_error
def main() -> None:
    """Draws, and says where the picture is."""
    arguments = parse_arguments()
    out = Path(arguments.out)
    if out.suffix.lower() != '.png':
        raise UserError(f"the picture is a PNG, so that '{out}' must end in .png.")
    # Imported late, so that --help answers at once.
    from mmdsym.atomic_file import write_file
    from mmdsym.diffusion.labelled_images import read_labelled_images
    from mmdsym.diffusion.synthesis_sheet import draw_synthesis_sheet, draw_synthetic_regions

    folder, manifest = _newest_cache(_cache_root(arguments))
    origin = manifest['labelled']
    labelled = read_labelled_images(
        dict(
            type='mmdsym.DefectDataset',
            ann_file=origin['ann_file'],
            data_prefix=dict(img=origin['images']),
        )
    )
    if arguments.synthetic_only:
        sheet = draw_synthetic_regions(
            folder, labelled.classes, 2 * arguments.pairs, arguments.seed
        )
    else:
        sheet = draw_synthesis_sheet(folder, manifest, labelled, arguments.pairs, arguments.seed)
    stream = io.BytesIO()
    sheet.image.save(stream, 'PNG')
    replaced = ' (replaced)' if out.exists() else ''
    write_file(out, stream.getvalue())
    print(f'{sheet.real} real and {sheet.synthetic} synthetic defects: {out}{replaced}')


def _cache_root(arguments: argparse.Namespace) -> Path:
    if not arguments.cache.endswith('.py'):
        return Path(arguments.cache)
    from mmdsym.config import complete_config
    from mmdsym.diffusion.synthesis_config import find_synthesis

    arguments.config = arguments.cache
    return Path(find_synthesis(complete_config(read_config(arguments)))['cache_dir'])


def _newest_cache(root: Path) -> tuple[Path, dict]:
    from mmdsym.diffusion.cache_manifest import read_manifests

    caches = list(read_manifests(root))
    if not caches:
        raise UserError(
            f'there is no finished cache of synthetic images in {root}: make one with '
            'tools/synthesize.py.'
        )
    folder, manifest = max(caches, key=lambda cache: (cache[0] / 'manifest.json').stat().st_mtime)
    if len(caches) > 1:
        print(f'{root} holds {len(caches)} caches; this is the newest, {folder.name}')
    return folder, manifest


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text} is not a number from 1')
    return int(text)


if __name__ == '__main__':
    main()
