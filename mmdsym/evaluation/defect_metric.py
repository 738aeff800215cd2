"""MMDetection's COCO metric, with AP@0.5 of each class."""

from __future__ import annotations

import numpy as np
from mmdet.evaluation import CocoMetric
from mmdet.evaluation.metrics.coco_metric import COCOeval

from mmdsym.registry import METRICS


@METRICS.register_module()
class DefectMetric(CocoMetric):
    """COCO's box metrics, and ``AP50/<class>`` for each class in [0, 1].

    NEU-DET is reported at an overlap of 0.5, class by class; ``classwise`` of the parent gives
    means over overlaps only.

    Args:
        **kwargs: As in :class:`mmdet.evaluation.CocoMetric`; ``metric`` stays ``'bbox'``.
    """

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Returns the parent's metrics and those of the classes; NaN for a class without boxes."""
        metrics = super().compute_metrics(results)
        boxes = [box for _, prediction in results for box in self._as_coco(prediction)]
        if not boxes:
            return metrics | self._of_nothing()
        evaluation = COCOeval(self._coco_api, self._coco_api.loadRes(boxes), 'bbox')
        evaluation.params.catIds = self.cat_ids
        evaluation.params.imgIds = self.img_ids
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.evaluate()
        evaluation.accumulate()
        # Axes: overlap, recall, class, area range, most detections an image.
        precision = evaluation.eval['precision'][0, :, :, 0, -1]
        for name, of_class in zip(self.dataset_meta['classes'], precision.T, strict=True):
            found = of_class[of_class > -1]
            metrics[f'AP50/{name}'] = float(found.mean()) if len(found) else float('nan')
        return metrics

    def _of_nothing(self) -> dict[str, float]:
        """Metrics of a detector that found nothing at all, of which MMDetection's says nothing."""
        asked = dict(img_ids=self.img_ids, iscrowd=False)
        true = {
            name: bool(self._coco_api.get_ann_ids(cat_ids=[category], **asked))
            for name, category in zip(self.dataset_meta['classes'], self.cat_ids, strict=True)
        }
        # As MMDetection's where there are no true boxes either.
        overall = 0.0 if any(true.values()) else -1.0
        return {
            'bbox_mAP': overall,
            'bbox_mAP_50': overall,
            'bbox_mAP_75': overall,
            **{f'AP50/{name}': 0.0 if there else float('nan') for name, there in true.items()},
        }

    def _as_coco(self, prediction: dict) -> list[dict]:
        return [
            {
                'image_id': prediction['img_id'],
                'category_id': self.cat_ids[label],
                'bbox': self.xyxy2xywh(box),
                'score': float(score),
            }
            for box, label, score in zip(
                prediction['bboxes'], prediction['labels'], prediction['scores'], strict=True
            )
        ]
