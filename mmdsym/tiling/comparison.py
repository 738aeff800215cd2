"""What tiles are worth: one detector on tiles, and on whole images shrunk and full."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from mmdsym.benchmark.hardware import commit, hardware, versions
from mmdsym.errors import UserError
from mmdsym.tiling.prediction import TiledPrediction
from mmdsym.tiling.tiled_detector import Merging
from mmdsym.tiling.whole_images import WholeImages, tiling_of, validation_images
from mmdsym.trained_run import TrainedRun

METRICS = ('bbox_mAP_50', 'bbox_mAP')


def compare_with_whole_images(
    run: TrainedRun, which: str, long_sides: Sequence[int]
) -> dict[str, Any]:
    """Evaluates a run on the held-out whole images of its data, in each way in turn.

    Args:
        run: Trained on tiles.
        which: `'teacher'` or `'student'`; without meaning for a plain detector.
        long_sides: Pixels to which whole images are scaled, besides what the test pipeline says.

    Returns:
        Machine, versions, data, and for each way its metrics in whole-image coordinates and its
        seconds for an image.

    Raises:
        UserError: The run's data were prepared without tiles.
    """
    tiling = tiling_of(run)
    if tiling is None:
        raise UserError(f"the data of '{run.config_path}' have no tiles; prepare them with --tile.")
    images = validation_images(run)
    ways = {
        f'tiles of {tiling.size} px, merged by {kind}': TiledPrediction(
            run, tiling, Merging(kind), which
        )
        for kind in ('nms', 'greedy-nmm')
    }
    ways['whole image, shrunk to the size of a tile'] = TiledPrediction(run, None, which=which)
    for side in long_sides:
        ways[f'whole image, longer side {side} px'] = TiledPrediction(
            run, None, which=which, long_side=side
        )
    return {
        'config': run.config_path.name,
        'checkpoint': run.checkpoint_path.name,
        'data': _describe(images),
        'hardware': hardware(),
        'versions': versions() | {'sahi': version('sahi')},
        'commit': commit(),
        'ways': {name: _measure(way, images) for name, way in ways.items()},
    }


def as_markdown(report: dict[str, Any]) -> str:
    """The report as a table."""
    head = '| detector sees | mAP@0.5 | mAP@0.5:0.95 | processor seconds/image |'
    lines = [head, '|---|---|---|---|']
    for name, way in report['ways'].items():
        at_half, mean = (f'{100 * way["metrics"][metric]:.1f}' for metric in METRICS)
        lines.append(f'| {name} | {at_half} | {mean} | {way["processor_seconds_per_image"]} |')
    return '\n'.join(lines)


def _measure(way: TiledPrediction, images: WholeImages) -> dict[str, Any]:
    document = way.run_on(images)
    metrics = {
        name: round(value, 4)
        for name, value in document['metrics'].items()
        if name in METRICS or name.startswith('AP50/')
    }
    return {
        'settings': document['settings'],
        'metrics': metrics,
        'boxes': len(document['annotations']),
        'seconds_per_image': document['seconds_per_image'],
        'processor_seconds_per_image': document['processor_seconds_per_image'],
    }


def _describe(images: WholeImages) -> dict[str, Any]:
    sizes = sorted({f'{entry["width"]}x{entry["height"]}' for entry in images.images})
    return {'images': len(images.images), 'sizes': sizes}
