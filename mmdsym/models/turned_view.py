"""What a detector finds on the same images in another orientation."""

from __future__ import annotations

import copy

import torch
from mmdet.structures import SampleList
from mmengine.structures import InstanceData
from torch import Tensor, nn


@torch.no_grad()
def predict_turned(detector: nn.Module, images: Tensor, samples: SampleList) -> list[InstanceData]:
    """Shows a detector its images mirrored at their second diagonal; costs one forward pass.

    This exchanges the axes and mirrors both, so that no detector can answer from habit.

    Args:
        detector: A plain detector in evaluation mode.
        images: (N, C, H, W), as its ``predict`` takes them.
        samples: Their N data samples; left as they are.

    Returns:
        Per image its boxes, in the frame of ``images``.
    """
    height, width = images.shape[-2:]
    turned = images.transpose(-2, -1).flip(-2, -1)
    views = []
    for sample in samples:
        view = copy.deepcopy(sample)
        # Padding now lies above and to the left: the whole canvas counts as image.
        shape = dict(img_shape=(width, height), batch_input_shape=(width, height))
        view.set_metainfo(shape | dict(pad_shape=(width, height)))
        views.append(view)
    results = []
    for view in detector.predict(turned, views, rescale=False):
        found = view.pred_instances
        far = found.bboxes.new_tensor([width, height, width, height])
        found.bboxes = far - found.bboxes[:, [3, 2, 1, 0]]
        results.append(found)
    return results
