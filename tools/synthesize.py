"""Makes the synthetic images that a training config asks for, before the training."""

from __future__ import annotations

import argparse

from mmengine.registry import DATASETS, init_default_scope

import mmdsym  # noqa: F401  (registers the parts)
from mmdsym.command_line import add_config_options, read_config
from mmdsym.config import complete_config
from mmdsym.errors import exit_on_user_error


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='e.g. configs/baselines/supervised_synthetic_neu_40pct.py')
    add_config_options(parser)
    return parser.parse_args()


@exit_on_user_error
def main() -> None:
    """Makes or finds the cache, and says where it is and how it went."""
    arguments = parse_arguments()
    from mmdsym.diffusion.synthesis_config import find_synthesis

    cfg = complete_config(read_config(arguments))
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    report = DATASETS.build({**find_synthesis(cfg), 'pipeline': []}).synthesis
    print(f'{report.images} synthetic images: {report.folder}')
    print(report.rejections())
    if report.painted_now:
        speed = report.painted_now / report.seconds
        print(
            f'{report.painted_now} regions painted in {report.seconds:.0f} s: '
            f'{speed:.2f} regions per second'
        )
    else:
        print('all of them were there, nothing was painted')


if __name__ == '__main__':
    main()
