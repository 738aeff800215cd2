"""Times the synthesis of a config: painting, and serving synthetic beside labelled images.

Paints the first images of the config's layout without a cache and without an acceptance test, so
that nothing but the synthesiser counts. Then it serves labelled and synthetic images in turn, in
this process, all of them from memory. Makes the cache if it is not there.

Example:
    python tools/benchmark_synthesis.py configs/baselines/supervised_synthetic_neu_40pct.py \
        --out docs/results/synthesis_speed_cpu.json
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from pathlib import Path

import torch
from mmengine.config import ConfigDict
from mmengine.registry import DATASETS, init_default_scope

import mmdsym  # noqa: F401  (registers the parts)
from mmdsym.atomic_file import write_json
from mmdsym.command_line import add_config_options, read_config
from mmdsym.config import complete_config
from mmdsym.errors import exit_on_user_error
from mmdsym.registry import SYNTHESISERS


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='e.g. configs/baselines/supervised_synthetic_neu_40pct.py')
    parser.add_argument('--images', type=int, default=64, help='images to paint (64)')
    parser.add_argument('--rounds', type=int, default=7, help='rounds of serving (7)')
    parser.add_argument('--out', type=Path, help='json to write')
    add_config_options(parser)
    return parser.parse_args()


def time_painting(config: ConfigDict, images: int) -> dict[str, float]:
    """Returns how fast the synthesiser of a synthetic data set's config paints."""
    from mmdsym.diffusion.building import build_part
    from mmdsym.diffusion.labelled_images import read_labelled_images
    from mmdsym.diffusion.layout import LayoutPlanner
    from mmdsym.diffusion.layout_config import parse_layout
    from mmdsym.diffusion.painting import Painter

    labelled = read_labelled_images(config.dataset)
    synthesiser = build_part(SYNTHESISERS, config.synthesiser, labelled.classes)
    planner = LayoutPlanner(labelled, parse_layout(config.layout), config.get('seed', 0))
    layouts = planner.plan_all(images)
    painter = Painter(labelled, synthesiser, batch_size=config.get('batch_size', 16))
    begin = time.perf_counter()
    regions = sum(len(image.outcomes) for image in painter.paint(layouts))
    seconds = time.perf_counter() - begin
    return dict(
        regions=regions,
        regions_per_second=regions / seconds,
        # Of the whole process, torch and its libraries included.
        peak_memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def time_serving(sources: ConfigDict, rounds: int) -> dict[str, float]:
    """Returns the median milliseconds that it takes to serve one image of each source."""
    datasets = {name: DATASETS.build(sources[name]) for name in ('labelled', 'synthetic')}
    count = min(200, *map(len, datasets.values()))
    times: dict[str, list[float]] = {name: [] for name in datasets}
    for turn in range(rounds + 1):
        for name, dataset in datasets.items():
            begin = time.perf_counter()
            for index in range(count):
                dataset[index]
            # The first round decodes the files.
            if turn:
                times[name].append((time.perf_counter() - begin) / count * 1000)
    medians = {f'{name}_ms': statistics.median(values) for name, values in times.items()}
    return medians | dict(ratio=medians['synthetic_ms'] / medians['labelled_ms'])


@exit_on_user_error
def main() -> None:
    """Measures, prints, and writes the json."""
    arguments = parse_arguments()
    from mmdsym.diffusion.synthesis_config import find_synthesis

    cfg = complete_config(read_config(arguments))
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    result = dict(
        config=arguments.config,
        threads=torch.get_num_threads(),
        painting=time_painting(find_synthesis(cfg), arguments.images),
        serving=time_serving(cfg.train_dataloader.dataset.sources, arguments.rounds),
    )
    print(json.dumps(result, indent=2))
    if arguments.out:
        write_json(arguments.out, result)


if __name__ == '__main__':
    main()
