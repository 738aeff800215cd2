"""Images as the detector sees them, to compare runtimes on."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmcv import imwrite
from mmcv.transforms import Compose
from mmdet.structures import DetDataSample
from mmengine import Config
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdsym.test_images import paths_of_test_images

_NOISE_SIZE = (200, 224)


@dataclass(frozen=True)
class Frame:
    """An image behind the test pipeline.

    Attributes:
        pixels: BGR, (3, H, W), uint8, as the pipeline leaves them.
        sample: Its meta data.
    """

    pixels: Tensor
    sample: DetDataSample

    @property
    def rgb(self) -> np.ndarray:
        """The graph's input, (1, 3, H, W), uint8."""
        return self.pixels.flip(0)[None].numpy()

    def cropped(self, width: int, height: int) -> Frame:
        """Returns the upper left corner as an image of its own."""
        pixels = self.pixels[:, :height, :width].contiguous()
        shape = tuple(pixels.shape[1:])
        meta = dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0))
        return Frame(pixels, DetDataSample(metainfo=meta))


def read_frames(config: Config, count: int) -> tuple[list[Frame], bool]:
    """Reads images of a plain config's test data set, evenly spread.

    Args:
        config: With ``test_pipeline`` and ``test_dataloader``.
        count: How many at most.

    Returns:
        The images, and whether they are real: without test images one of noise stands in.
    """
    pipeline = Compose(config.test_pipeline)
    paths = paths_of_test_images(config, count)
    with tempfile.TemporaryDirectory() as folder:
        if not paths:
            noise = np.random.default_rng(0).integers(0, 256, (*_NOISE_SIZE, 3), dtype=np.uint8)
            imwrite(noise, f'{folder}/noise.png')
        read = [
            pipeline(dict(img_path=str(path), img_id=0, instances=[]))
            for path in paths or [Path(folder) / 'noise.png']
        ]
    frames = [Frame(item['inputs'], item['data_samples']) for item in read]
    return frames, bool(paths)


def predict(detector: nn.Module, frame: Frame) -> InstanceData:
    """Lets a detector predict on one image, in pixels of the resized image."""
    sample = frame.sample.clone()
    sample.set_metainfo(dict(scale_factor=(1.0, 1.0)))
    data = dict(inputs=[frame.pixels], data_samples=[sample])
    with torch.no_grad():
        return detector.test_step(data)[0].pred_instances
