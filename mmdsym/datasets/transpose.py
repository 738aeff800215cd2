"""Quarter turns, together with MMDetection's flips, for surfaces that have no upright position."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.structures.bbox import HorizontalBoxes, autocast_box_type

from mmdsym.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomTranspose(BaseTransform):
    """Swaps the axes of image and boxes; with random flips this gives all eight orientations.

    A strip may pass the camera along or across: on NEU-DET nine in ten scratches of the usual
    training files stand upright, while those of the validation files lie.

    Args:
        prob: Probability of a swap, in [0, 1].
        image_size: (width, height) to which views are cut; where it is no square nothing is ever
            swapped, since a strip that lies across the cut would lose most of itself.
    """

    def __init__(self, prob: float = 0.5, image_size: tuple[int, int] | None = None) -> None:
        self.prob = prob if image_size is None or image_size[0] == image_size[1] else 0.0

    @cache_randomness
    def _chosen(self) -> bool:
        return np.random.rand() < self.prob

    @autocast_box_type()
    def transform(self, results: dict) -> dict:
        """Swaps ``img``, ``img_shape`` and ``gt_bboxes``, and records it in the homography."""
        if not self._chosen():
            return results
        results['img'] = np.ascontiguousarray(results['img'].transpose(1, 0, 2))
        results['img_shape'] = results['img'].shape[:2]
        if 'gt_bboxes' in results:
            corners = results['gt_bboxes'].tensor[:, [1, 0, 3, 2]]
            results['gt_bboxes'] = HorizontalBoxes(corners)
        swap = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=np.float32)
        before = results.get('homography_matrix')
        results['homography_matrix'] = swap if before is None else swap @ before
        return results
