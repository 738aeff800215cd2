"""How long one image takes in PyTorch, ONNX Runtime and OpenVINO."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mmdsym.atomic_file import write_file, write_json
from mmdsym.benchmark.hardware import commit, hardware, versions
from mmdsym.benchmark.timing import StepTime, measure_in_turn, median, median_ratio
from mmdsym.errors import UserError
from mmdsym.export import build_plain_detector
from mmdsym.trained_run import TrainedRun

from .frames import Frame, predict, read_frames
from .graph import DetectorGraph
from .onnx_export import export_onnx
from .parity import check_parity
from .runtimes import OnnxRuntime, OpenVino

REFERENCE = 'PyTorch'
# Above this many processes that want a core, times say more of them than of the detector.
QUIET_LOAD = 0.3
_RUNTIMES = {'ONNX Runtime': OnnxRuntime, 'OpenVINO': OpenVino}


def measure_latency(
    run: TrainedRun, which: str, threads: int, rounds: int, image_count: int
) -> dict[str, Any]:
    """Times one image at a time, from resized pixels to boxes, all runtimes in turn.

    Before anything is timed, every runtime must find PyTorch's boxes.

    Args:
        run: Its network is exported into a temporary folder.
        which: ``'teacher'`` or ``'student'``.
        threads: For each runtime.
        rounds: Measurements, each over all images.
        image_count: Number of test images.

    Returns:
        What a report needs: machine, versions, load before, and per runtime the median
        milliseconds per image and the ratio to PyTorch.

    Raises:
        UserError: A number is not positive, or the detector cannot be exported.
    """
    for name, value in dict(threads=threads, rounds=rounds, images=image_count).items():
        if value < 1:
            raise UserError(f'--{name} {value} leaves nothing to measure; give at least 1.')
    load = os.getloadavg()[0]
    torch.set_num_threads(threads)
    detector = build_plain_detector(run, which)
    frames, real = read_frames(detector.cfg, image_count)
    with tempfile.TemporaryDirectory() as folder:
        steps = {REFERENCE: lambda: [predict(detector, frame) for frame in frames]}
        for fixed in (False, True) if DetectorGraph(detector).takes_any_size else (True,):
            exported = export_onnx(run, folder, which, fixed_size=fixed, force=True)
            for name, kind in _RUNTIMES.items():
                runtime = kind(exported.path, threads)
                check_parity(detector, runtime, frames, exported.contract, not fixed)
                variant = f'{name}, fixed size' if fixed else name
                steps[variant] = _over_all(runtime, frames)
        times = measure_in_turn(steps, rounds)
    height, width = frames[0].pixels.shape[1:]
    return dict(
        run=run.config_path.stem,
        checkpoint=run.checkpoint_path.name,
        detector=type(detector).__name__,
        input=f'{width}x{height}',
        images=len(frames),
        real_images=real,
        threads=threads,
        rounds=rounds,
        load_before=round(load, 2),
        quiet=load <= QUIET_LOAD,
        hardware=hardware(),
        versions=versions() | {name: version(name) for name in ('onnxruntime', 'openvino')},
        commit=commit(),
        runtimes=rows(times, len(frames)),
    )


def rows(times: Mapping[str, Sequence[StepTime]], images: int) -> list[dict[str, Any]]:
    """Returns one row per runtime.

    Args:
        times: Per runtime one time for each round over all images, ``REFERENCE`` among them.
        images: Number of images in a round.
    """
    reference = list(times[REFERENCE])
    found = []
    for name, own in times.items():
        walls = sorted(1000 * time.wall / images for time in own)
        found.append(
            dict(
                runtime=name,
                milliseconds=round(1000 * median(list(own)).wall / images, 2),
                fastest=round(walls[0], 2),
                slowest=round(walls[-1], 2),
                ratio=round(median_ratio(list(own), reference).wall, 3),
            )
        )
    return found


def as_markdown(report: dict[str, Any]) -> str:
    """Formats a report as a table with what it was measured on."""
    lines = [
        '| runtime | ms per image | fastest | slowest | of PyTorch |',
        '| --- | ---: | ---: | ---: | ---: |',
    ]
    lines += [
        f'| {row["runtime"]} | {row["milliseconds"]:.1f} | {row["fastest"]:.1f} | '
        f'{row["slowest"]:.1f} | {row["ratio"]:.2f} |'
        for row in report['runtimes']
    ]
    busy = '' if report['quiet'] else ' The machine was busy: do not trust these times.'
    note = (
        f'{report["detector"]} of {report["run"]}, {report["input"]} pixels, one image at a time, '
        f'{report["threads"]} threads, {report["hardware"]}; medians of {report["rounds"]} rounds '
        f'over {report["images"]} images, all runtimes in turn in one process, from resized '
        f'pixels to suppressed boxes; load before: {report["load_before"]}.{busy}'
    )
    return '\n'.join([*lines, '', note, ''])


def write_report(report: dict[str, Any], path: Path) -> Path:
    """Writes a report as json, and as Markdown beside it; returns the latter's path."""
    table = path.with_suffix('.md')
    write_json(path, report)
    write_file(table, as_markdown(report).encode())
    return table


def _over_all(runtime: Callable, frames: Sequence[Frame]) -> Callable[[], object]:
    pixels = [frame.rgb.copy() for frame in frames]
    return lambda: [runtime(rgb) for rgb in pixels]
