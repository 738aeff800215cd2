"""Proof that a runtime finds in an ONNX file the boxes that PyTorch finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from mmengine.structures import InstanceData
from torch import nn
from torchvision.ops import batched_nms

from mmdsym.errors import UserError

from .frames import Frame, predict
from .matching import Comparison, Cuts, Found, compare, merged

# From RGB pixels (B, 3, H, W) to boxes, scores and labels.
Runtime = Callable[[np.ndarray], Sequence[np.ndarray]]


def check_parity(
    detector: nn.Module, runtime: Runtime, frames: Sequence[Frame], contract: dict, dynamic: bool
) -> Comparison:
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
    rule = contract['suppression']
    cuts = Cuts(
        contract['score_threshold'],
        rule['max_boxes'],
        float('inf') if rule['iou_threshold'] is None else rule['iou_threshold'],
        rule['class_agnostic'],
    )
    parity = merged([compare(*pair, cuts) for pair in compared])
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
