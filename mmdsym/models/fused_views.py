"""What a detector finds on several views of an image, fused into one answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.utils import weighted_boxes_fusion
from mmdet.structures import DetDataSample
from mmengine.model import BaseTTAModel
from mmengine.structures import InstanceData
from torch import nn

from mmdsym.registry import MODELS

from .pseudo_labels import project


@MODELS.register_module()
class FusedViews(BaseTTAModel):
    """A detector that looks at each image in several views, and answers with their mean.

    For MMEngine's ``PrepareTTAHook``, see :func:`mmdsym.test_time_views.see_all_orientations`.

    Args:
        module: The detector, or its config.
        iou_threshold: See :func:`fuse_views`.
        data_preprocessor: As in MMEngine: replaces the detector's own.
    """

    def __init__(
        self,
        module: nn.Module | dict,
        iou_threshold: float = 0.65,
        data_preprocessor: nn.Module | dict | None = None,
    ) -> None:
        super().__init__(module, data_preprocessor)
        self.iou_threshold = iou_threshold

    def merge_preds(self, data_samples_list: list[Sequence[DetDataSample]]) -> list[DetDataSample]:
        """Fuses the views of each image.

        Args:
            data_samples_list: Per image its views, the straight one first. Each has found boxes as
                detectors return them, freed of ``scale_factor``, and the ``homography_matrix``
                that led from the original image to the view.

        Returns:
            Per image the first view's data sample, with boxes of all views as ``pred_instances``.
        """
        fused = []
        for views in data_samples_list:
            found = [_straightened(view) for view in views]
            views[0].pred_instances = fuse_views(found, self.iou_threshold)
            fused.append(views[0])
        return fused


def fuse_views(views: Sequence[InstanceData], iou_threshold: float = 0.65) -> InstanceData:
    """Fuses boxes that were found on several views by weighted boxes fusion (arXiv 1910.13302).

    Boxes of a class that overlap become one, the mean of their corners weighted by scores. Its
    score is the mean over all views, where a view that did not find it counts as zero.

    Args:
        views: Per view ``bboxes`` (N, 4) in the frame of the original image, ``scores`` (N,) and
            ``labels`` (N,).
        iou_threshold: Overlap from which boxes are taken for the same defect. Above that of the
            detector's own suppression, or what it holds for two defects becomes one.

    Returns:
        The fused boxes, best first.
    """
    parts = [[view[name].cpu() for view in views] for name in ('bboxes', 'scores', 'labels')]
    bboxes, scores, labels = weighted_boxes_fusion(*parts, iou_thr=iou_threshold)
    like = views[0]
    return InstanceData(
        bboxes=bboxes.reshape(-1, 4).to(like.bboxes),
        scores=scores.to(like.scores),
        labels=labels.to(like.labels),
    )


def _straightened(view: DetDataSample) -> InstanceData:
    found = view.pred_instances[:]
    # Detectors divide by the scale of the view, whose boxes the homography leads back.
    scale = found.bboxes.new_tensor(view.get('scale_factor', (1.0, 1.0))).repeat(2)
    found.bboxes = found.bboxes * scale
    homography = view.get('homography_matrix')
    return project(found, homography, view.ori_shape, inverse=True, min_size=torch.finfo().tiny)
