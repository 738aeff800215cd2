"""A small cache of synthetic images, for the tests that look at one."""

from __future__ import annotations

import time
from pathlib import Path

from mmengine.registry import init_default_scope

from mmdsym.diffusion.labelled_images import LabelledImages, read_labelled_images
from mmdsym.diffusion.layout_config import LayoutConfig
from mmdsym.diffusion.synthesis import Synthesis

COUNT = 8
LAYOUT = LayoutConfig(defects_per_image=(1, 3), max_covered=0.5)


class Stamp:
    """Paints a plain box whose brightness follows from the seed."""

    def __init__(self, fingerprint: str = 'stamp', pause: float = 0.0) -> None:
        self.fingerprint = fingerprint
        self.pause = pause
        self.batches: list[int] = []

    def paint(self, tasks):
        time.sleep(self.pause)
        self.batches.append(len(tasks))
        images = []
        for task in tasks:
            image = task.image.copy()
            x1, y1, x2, y2 = (round(value) for value in task.box)
            image[y1:y2, x1:x2] = task.seed % 200
            images.append(image)
        return images


def read(root: Path) -> LabelledImages:
    init_default_scope('mmdet')
    return read_labelled_images(
        dict(
            type='mmdsym.DefectDataset',
            ann_file=str(root / 'annotations/40pct_seed0/labelled.json'),
            data_prefix=dict(img=f'{root}/images/'),
        )
    )


def synthesis(labelled, synthesiser=None, **options) -> Synthesis:
    options = {'count': COUNT, 'layout': LAYOUT, **options}
    return Synthesis(labelled, synthesiser or Stamp(), **options)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a cache."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }
