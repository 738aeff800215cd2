"""How long steps will take, from earlier runs where there are any."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path

from mmengine.config import Config

from mmdsym.stages import Stage

from .parts import Part
from .progress import seconds_per_iteration
from .similar_runs import Settings, runs_alike, same_stage

ROUGH = 'rough, from the config'
"""The config's ``rough_seconds``: measured on 2 CPU cores, on other data and another day."""


@dataclass(frozen=True)
class Estimate:
    """A duration and what it is based on.

    Attributes:
        seconds: ``None`` where nothing is known.
        basis: For the reader.
    """

    seconds: float | None = None
    basis: str = ''


NOTHING = Estimate(0.0)


def of_part(part: Part, cfg: Config, iterations: int) -> Estimate:
    """Estimates so many iterations of a part's training."""
    earlier = part.family.parent.glob(f'{part.family.name}-*.training')
    measured = [(folder, 0, inf) for folder in (part.training_folder, *_newest(earlier))]
    return _measured(measured, iterations) or _rough(cfg, part.name, iterations)


def of_stage(stage: Stage, cfg: Config, settings: Settings, iterations: int) -> Estimate:
    """Estimates so many iterations of a stage, without the validation after it.

    Args:
        stage: The stage.
        cfg: The completed config, with its work folder.
        settings: What determines the run.
        iterations: How many of the stage are left.
    """
    work_dir = Path(cfg.work_dir)
    measured = [(work_dir, stage.begin, stage.end)]
    for folder, earlier in runs_alike(work_dir, settings):
        if borders := same_stage(earlier, stage.images):
            measured.append((folder, *borders))
    return _measured(measured, iterations) or _rough(cfg, 'image', iterations * stage.batch_size)


def of_training(cfg: Config, settings: Settings, iterations: int) -> Estimate:
    """Estimates so many iterations of a training without stages, without validation."""
    work_dir, batch_size = Path(cfg.work_dir), cfg.train_dataloader.get('batch_size')
    alike = [
        folder
        for folder, earlier in runs_alike(work_dir, settings)
        if earlier.get('train_dataloader.batch_size') == batch_size
    ]
    measured = [(folder, 0, inf) for folder in (work_dir, *alike)]
    return _measured(measured, iterations) or _rough(cfg, 'image', iterations * (batch_size or 1))


def of_regions(cfg: Config, regions: float) -> Estimate:
    """Estimates the painting of so many regions."""
    return _rough(cfg, 'region', regions)


def of_test(cfg: Config, images: int) -> Estimate:
    """Estimates the test of so many images."""
    return _rough(cfg, 'test_image', images)


def _measured(places: Iterable[tuple[Path, int, float]], iterations: int) -> Estimate | None:
    """Estimates by the first folder whose log holds iterations between its two borders."""
    for folder, begin, end in places:
        speed = seconds_per_iteration(folder, begin, end)
        if speed is not None:
            return Estimate(speed * iterations, f'measured in {folder}')
    return None


def _rough(cfg: Config, name: str, count: float) -> Estimate:
    seconds = (cfg.get('rough_seconds') or {}).get(name)
    return Estimate() if seconds is None else Estimate(seconds * count, ROUGH)


def _newest(folders: Iterator[Path]) -> list[Path]:
    return sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)
