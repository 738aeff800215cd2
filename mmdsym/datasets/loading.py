"""Image loading that decodes once and names the file that cannot be read."""

from __future__ import annotations

from collections import OrderedDict

import cv2
import numpy as np
from mmcv.transforms import LoadImageFromFile

from mmdsym.errors import UserError
from mmdsym.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadCachedImageFromFile(LoadImageFromFile):
    """Loads an image and keeps it decoded in memory, in each worker on its own.

    Grey images are kept with one channel and widened when they are served.

    Args:
        cache_megabytes: Memory that one worker may use for decoded images; the images served
            longest ago go first. 0 switches the cache off.
        **kwargs: As in :class:`mmcv.transforms.LoadImageFromFile`.

    Raises:
        UserError: The image is missing or cannot be decoded.
    """

    def __init__(self, cache_megabytes: float = 512, **kwargs) -> None:
        super().__init__(**kwargs)
        self.capacity = int(cache_megabytes * 2**20)
        self._cache: OrderedDict[str, np.ndarray] = OrderedDict()
        self._used = 0

    def transform(self, results: dict) -> dict:
        """Adds ``img`` of shape (H, W, 3), ``img_shape`` and ``ori_shape`` to the results."""
        image = self.decoded(results['img_path'])
        # The copy protects the cache: transforms may write into the image.
        results['img'] = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image.copy()
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def decoded(self, path: str) -> np.ndarray:
        """Returns an image as it is kept: (H, W, 3), or (H, W, 1) where it is grey.

        It belongs to the cache: whoever writes, writes into a copy.
        """
        image = self._cache.get(path)
        if image is None:
            image = self._decode(path)
            self._remember(path, image)
        else:
            self._cache.move_to_end(path)
        return image

    def _decode(self, path: str) -> np.ndarray:
        try:
            image = super().transform(dict(img_path=path))['img']
        # OpenCV raises its own error for an empty file, and gives nothing for most damaged ones.
        except (OSError, AssertionError, AttributeError, ValueError, cv2.error) as error:
            raise UserError(
                f'image {path} cannot be read ({_reason(error)}): restore the file, or '
                'prepare the data again with --fix, then go on with --resume.'
            ) from None
        grey = (image[..., :1] == image).all()
        return np.ascontiguousarray(image[..., :1]) if grey else image

    def _remember(self, path: str, image: np.ndarray) -> None:
        if image.nbytes > self.capacity:
            return
        self._cache[path] = image
        self._used += image.nbytes
        while self._used > self.capacity:
            _, oldest = self._cache.popitem(last=False)
            self._used -= oldest.nbytes


def _reason(error: Exception) -> str:
    undecodable = isinstance(error, (AssertionError, cv2.error))
    return 'OpenCV cannot decode it' if undecodable else type(error).__name__
