"""How long steps will take, from earlier runs where there are any."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from mmdsym.stages import Stage

from .parts import Part
from .progress import seconds_per_iteration

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
    for folder in (part.training_folder, *_newest(earlier)):
        speed = seconds_per_iteration(folder)
        if speed is not None:
            return Estimate(speed * iterations, f'measured in {folder}')
    return _rough(cfg, part.name, iterations)


def of_stage(stage: Stage, cfg: Config, iterations: int) -> Estimate:
    """Estimates so many iterations of a stage, without the validation after it."""
    work_dir = Path(cfg.work_dir)
    config_name = Path(cfg.filename or '').name
    siblings = (path.parent for path in work_dir.parent.glob(f'*/{config_name}'))
    for folder in (work_dir, *_newest(siblings)):
        speed = seconds_per_iteration(folder, stage.begin, stage.end)
        if speed is not None:
            return Estimate(speed * iterations, f'measured in {folder}')
    return _rough(cfg, 'image', iterations * stage.batch_size)


def of_regions(cfg: Config, regions: float) -> Estimate:
    """Estimates the painting of so many regions."""
    return _rough(cfg, 'region', regions)


def of_test(cfg: Config, images: int) -> Estimate:
    """Estimates the test of so many images."""
    return _rough(cfg, 'test_image', images)


def _rough(cfg: Config, name: str, count: float) -> Estimate:
    seconds = (cfg.get('rough_seconds') or {}).get(name)
    return Estimate() if seconds is None else Estimate(seconds * count, ROUGH)


def _newest(folders: Iterator[Path]) -> list[Path]:
    return sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)
