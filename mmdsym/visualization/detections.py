"""A sheet that shows what a trained detector finds, beside the ground truth."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from mmdet.apis import inference_detector
from mmdet.registry import DATASETS
from mmengine.structures import InstanceData
from PIL import Image
from torch import Tensor

from mmdsym.atomic_file import drafted
from mmdsym.datasets.preparation.sources.files import IMAGE_SUFFIXES
from mmdsym.errors import UserError
from mmdsym.export import build_plain_detector
from mmdsym.image_files import read_rgb
from mmdsym.output_place import require_place
from mmdsym.trained_run import TrainedRun

from .sheet import CLASS_COLOURS, GREEN, Box, compose_sheet, draw_panel

DEFAULT_THRESHOLD = 0.3
_STEP = re.compile(r'(?:iter|epoch)_(\d+)$')


@dataclass(frozen=True)
class DetectionSheet:
    """What was drawn.

    Attributes:
        path: The picture.
        images: Number of images on it.
        detections: Number of boxes drawn as detections.
        title: The title above them.
    """

    path: Path
    images: int
    detections: int
    title: str


@dataclass(frozen=True)
class _Example:
    path: Path
    truth: tuple[Box, ...] | None


def draw_detections(
    run: TrainedRun,
    out: str | Path | None = None,
    which: str = 'teacher',
    images: str | Path | None = None,
    count: int = 12,
    score_threshold: float | None = None,
) -> DetectionSheet:
    """Draws detections beside ground truth, two panels per image, and saves one PNG.

    Args:
        run: From :func:`mmdsym.trained_run.load_run`.
        out: The PNG; by default ``detections.png`` beside the checkpoint. Replaced if it exists.
        which: ``'teacher'`` or ``'student'``; without meaning for a plain detector.
        images: Folder of images without ground truth; by default the config's test set.
        count: How many images at most, evenly spread over all of them.
        score_threshold: Boxes below are not drawn; by default :func:`thresholds_of`.

    Raises:
        UserError: Images, annotations or checkpoint are missing or do not belong together.
    """
    path = Path(out) if out else run.checkpoint_path.parent / 'detections.png'
    if path.suffix.lower() != '.png':
        raise UserError(f"the picture is a PNG, so that '{path}' must end in .png.")
    require_place(path, force=True)
    if count < 1:
        raise UserError(f'--count {count} leaves nothing to draw; give at least 1.')
    detector = build_plain_detector(run, which)
    examples = _from_folder(Path(images), count) if images else _from_data_set(detector, count)
    thresholds = thresholds_of(run, score_threshold)
    entries, drawn = [], 0
    for example in examples:
        image = _open(example.path)
        found = _boxes_found(inference_detector(detector, str(example.path)), run, thresholds)
        entries.append(_panels(image, example, found))
        drawn += len(found)
    title = _title(run, which, thresholds)
    _save(compose_sheet(entries, title), path)
    return DetectionSheet(path, len(examples), drawn, title)


def thresholds_of(run: TrainedRun, score_threshold: float | None = None) -> Tensor:
    """Chooses from which score a box of each class is drawn.

    Args:
        run: Its checkpoint may hold thresholds that were calibrated for the teacher's own scores.
        score_threshold: Used for every class when given, in [0, 1].

    Returns:
        Shape (num_classes,). Without calibration, and for a class of which it trusts no box at all,
        0.3.
    """
    count = len(run.classes)
    if score_threshold is not None:
        return torch.full((count,), float(score_threshold))
    known = run.own_thresholds
    if known is None or len(known) != count:
        return torch.full((count,), DEFAULT_THRESHOLD)
    calibrated = torch.tensor(known)
    usable = calibrated.isfinite() & (calibrated <= 1)
    return torch.where(usable, calibrated, DEFAULT_THRESHOLD)


def known_map50(run: TrainedRun, which: str = 'teacher') -> float | None:
    """Looks up the mAP@0.5 that the training log gives for this very checkpoint.

    A checkpoint itself is written before it is evaluated, so that the value in it is an older
    one; the log beside it has the right one.

    Returns:
        In [0, 1], or ``None`` where it is not known.
    """
    step = _STEP.search(run.checkpoint_path.stem)
    if step is None:
        return None
    logs = sorted(run.checkpoint_path.parent.glob('*/vis_data/scalars.json'), reverse=True)
    key = f'{which}/coco/bbox_mAP_50' if run.is_pair else 'coco/bbox_mAP_50'
    for log in logs:
        trained = 0
        for entry in _log_entries(log):
            # An iteration-based run may log each evaluation as step 0 (epoch 0); it belongs to
            # the training step before it.
            at = entry.get('step') or trained
            if key in entry and at == int(step[1]):
                return float(entry[key])
            trained = entry.get('step', 0) if 'loss' in entry else trained
    return None


def _log_entries(log: Path) -> Iterator[dict]:
    for line in log.read_text(encoding='utf-8').splitlines():
        # A run that was killed may leave half a line.
        with suppress(json.JSONDecodeError):
            yield json.loads(line)


def _from_folder(folder: Path, count: int) -> list[_Example]:
    if not folder.is_dir():
        raise UserError(f"the image folder '{folder}' does not exist; correct --images.")
    paths = sorted(p for p in folder.rglob('*') if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise UserError(f"'{folder}' holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    return [_Example(paths[index], None) for index in _spread(len(paths), count)]


def _from_data_set(detector: torch.nn.Module, count: int) -> list[_Example]:
    config = detector.cfg.test_dataloader.dataset
    try:
        data_set = DATASETS.build(config)
    except FileNotFoundError as error:
        raise UserError(
            f"the config's test set is not there ({error.filename or error}); prepare the data, or "
            'name a folder of images with --images.'
        ) from error
    classes = detector.dataset_meta['classes']
    examples = []
    for index in _spread(len(data_set), count):
        info = data_set.get_data_info(index)
        truth = tuple(
            Box(tuple(instance['bbox']), classes[instance['bbox_label']], GREEN)
            for instance in info['instances']
        )
        examples.append(_Example(Path(info['img_path']), truth))
    return examples


def _spread(total: int, count: int) -> list[int]:
    """Indices of ``count`` of ``total`` items, evenly spread, each once."""
    count = min(count, total)
    return [(2 * index + 1) * total // (2 * count) for index in range(count)]


def _open(path: Path) -> Image.Image:
    try:
        return read_rgb(path)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"the image '{path}' cannot be read; repair or remove it.") from error


def _boxes_found(result, run: TrainedRun, thresholds: Tensor) -> list[Box]:
    found: InstanceData = result.pred_instances
    found = found[found.scores >= thresholds[found.labels]]
    # The best last, so that it lies on top.
    found = found[found.scores.argsort()]
    return [
        Box(
            tuple(corners),
            f'{run.classes[label]} {score:.2f}',
            CLASS_COLOURS[label % len(CLASS_COLOURS)],
        )
        for corners, label, score in zip(
            found.bboxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
        )
    ]


def _panels(image: Image.Image, example: _Example, found: Sequence[Box]) -> list[Image.Image]:
    detections = f'{len(found)} detected' if found else 'nothing detected'
    if example.truth is None:
        return [draw_panel(image, found, f'{example.path.name}: {detections}')]
    return [
        draw_panel(image, example.truth, f'{example.path.name}: {len(example.truth)} true'),
        draw_panel(image, found, detections),
    ]


def _title(run: TrainedRun, which: str, thresholds: Tensor) -> str:
    parts = [run.config_path.stem, f'{which} of ' * run.is_pair + run.checkpoint_path.stem]
    accuracy = known_map50(run, which)
    if accuracy is not None:
        parts.append(f'mAP@0.5 {100 * accuracy:.1f}')
    low, high = thresholds.min().item(), thresholds.max().item()
    parts.append(f'scores from {low:.2f}' + f' to {high:.2f} on, by class' * (low != high))
    return ' | '.join(parts)


def _save(sheet: Image.Image, path: Path) -> None:
    with drafted(path) as draft:
        sheet.save(draft, format='PNG', optimize=True)
