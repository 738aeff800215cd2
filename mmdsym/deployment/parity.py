"""Proof that a runtime finds in an ONNX file the boxes that PyTorch finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.structures import InstanceData
from torch import nn
from torchvision.ops import batched_nms

from mmdsym.errors import UserError

from .frames import Frame, predict

MOST_PIXELS = 0.5
MOST_SCORE = 1e-3
# From RGB pixels (B, 3, H, W) to boxes, scores and labels.
Runtime = Callable[[np.ndarray], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Found:
    """Boxes on one image: corners (N, 4), scores (N,), labels (N,)."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Parity:
    """How a runtime's boxes differ from PyTorch's.

    Attributes:
        images: Number of images compared, other sizes and batches included.
        boxes: Number of boxes that PyTorch found on them.
        pixels: Largest difference of a corner.
        score: Largest difference of a score.
        missed: Boxes of either side without a counterpart, first those to be named.
    """

    images: int
    boxes: int
    pixels: float
    score: float
    missed: tuple[str, ...] = ()


def compare(expected: Found, found: Found, floor: float, limit: int) -> Parity:
    """Pairs boxes one to one, and measures the pairs.

    Two boxes are a pair if they have one class and differ by at most ``MOST_PIXELS`` and
    ``MOST_SCORE``. A box whose score is that close to where boxes are cut off may be without one.

    Args:
        expected, found: Boxes on one image.
        floor: Score below which boxes are dropped.
        limit: Number of boxes that are kept at most.
    """
    pixels = _distances(expected.boxes, found.boxes)
    scores = np.abs(expected.scores[:, None] - found.scores[None])
    fits = (pixels <= MOST_PIXELS) & (scores <= MOST_SCORE)
    fits &= expected.labels[:, None] == found.labels[None]
    pairs = _pairs(np.where(fits, pixels + scores, np.inf))
    missed = []
    for side, own, boxes in (('ONNX', 0, expected), ('PyTorch', 1, found)):
        full = len(boxes.scores) >= limit
        cut = max(floor, boxes.scores.min() if full else floor) + MOST_SCORE
        paired = {pair[own] for pair in pairs}
        missed += [
            f'{side} lacks class {boxes.labels[i]} at {boxes.boxes[i].round(1).tolist()} with '
            f'score {boxes.scores[i]:.4f}'
            for i in range(len(boxes.scores))
            if i not in paired and boxes.scores[i] > cut
        ]
    worst = [max((table[pair] for pair in pairs), default=0.0) for table in (pixels, scores)]
    return Parity(1, len(expected.scores), float(worst[0]), float(worst[1]), tuple(missed))


def check_parity(
    detector: nn.Module, runtime: Runtime, frames: Sequence[Frame], contract: dict, dynamic: bool
) -> Parity:
    """Compares on images, and where the graph takes any size, on other sizes and batches as well.

    Args:
        detector: The PyTorch detector.
        runtime: Runs the ONNX file.
        frames: Images to look at, at least one.
        contract: From :func:`mmdsym.deployment.contract.describe`.
        dynamic: Whether batch and size may vary.

    Raises:
        UserError: Boxes differ, with the first difference.
    """
    frames = list(frames)
    if dynamic:
        height, width = frames[0].pixels.shape[1:]
        frames.append(frames[0].cropped(width * 3 // 4, height * 5 // 6))
    single = [_run(runtime, frame.rgb, contract)[0] for frame in frames]
    expected = [_as_found(predict(detector, frame)) for frame in frames]
    compared = list(zip(expected, single, strict=True))
    alike = [i for i, frame in enumerate(frames) if frame.rgb.shape == frames[0].rgb.shape]
    if dynamic:
        alike = (alike * 2)[:2]
        both = _run(runtime, np.concatenate([frames[i].rgb for i in alike]), contract)
        compared += [(expected[i], own) for i, own in zip(alike, both, strict=True)]
    floor, limit = contract['score_threshold'], contract['suppression']['max_boxes']
    parity = _merged([compare(*pair, floor, limit) for pair in compared])
    if parity.missed:
        raise UserError(
            f'{runtime.__class__.__name__} and PyTorch find different boxes '
            f'({len(parity.missed)} of {parity.boxes}; {parity.missed[0]}), so that nothing was '
            'written; deploy this detector with MMDetection, or try --fixed-size.'
        )
    return parity


def _run(runtime: Runtime, rgb: np.ndarray, contract: dict) -> list[Found]:
    outputs = zip(*runtime(rgb), strict=True)
    return [_finished(*own, contract['suppression']) for own in outputs]


def _finished(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, how: dict) -> Found:
    """Takes the padding away, and suppresses where the graph did not."""
    there = scores > 0
    boxes, scores, labels = boxes[there], scores[there], labels[there]
    if not how['inside']:
        groups = torch.zeros(len(labels)) if how['class_agnostic'] else torch.from_numpy(labels)
        tensors = torch.from_numpy(boxes), torch.from_numpy(scores)
        kept = batched_nms(*tensors, groups, how['iou_threshold'])[: how['max_boxes']].numpy()
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
    return Found(boxes, scores, labels)


def _as_found(instances: InstanceData) -> Found:
    parts = (instances.bboxes, instances.scores, instances.labels)
    return Found(*(part.numpy() for part in parts))


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Largest difference of a corner's coordinate between each two boxes, (N, M)."""
    return np.abs(first[:, None] - second[None]).max(axis=-1)


def _pairs(cost: np.ndarray) -> list[tuple[int, int]]:
    """Pairs rows and columns, the cheapest first."""
    pairs, rows, columns = [], set(), set()
    for place in np.argsort(cost, axis=None, kind='stable'):
        row, column = (int(i) for i in np.unravel_index(place, cost.shape))
        if not np.isfinite(cost[row, column]):
            break
        if row not in rows and column not in columns:
            pairs.append((row, column))
            rows.add(row)
            columns.add(column)
    return pairs


def _merged(parts: Sequence[Parity]) -> Parity:
    return Parity(
        images=len(parts),
        boxes=sum(part.boxes for part in parts),
        pixels=max(part.pixels for part in parts),
        score=max(part.score for part in parts),
        missed=tuple(name for part in parts for name in part.missed),
    )
