"""Labelled crops as a data set, the clean surface among the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from mmdsym.clip.crop_augmentation import CropAugmentation, best_overlap, edge_offsets
from mmdsym.clip.encoder import view_crops
from mmdsym.clip.labelled_crops import LabelledImage, read_labelled_crops, read_rgb
from mmdsym.clip.views import CropView
from mmdsym.registry import DATASETS


@dataclass(frozen=True)
class Turn:
    """How many crops a process has varied, and the seed that it began with.

    Attributes:
        seed: Of the process.
        count: Crops so far.
        worker: Which worker of a data loader it is; ``None`` before the first crop, and -1 for the
            main process.
    """

    seed: int = 0
    count: int = 0
    worker: int | None = None

    def next(self) -> Turn:
        """Returns the turn of the next crop, which is the first one in a worker just started."""
        info = get_worker_info()
        worker = -1 if info is None else info.id
        if worker == self.worker:
            return replace(self, count=self.count + 1)
        # MMEngine seeds each worker by itself; later changes of the state do not matter.
        return Turn(torch.initial_seed(), 1, worker)


@DATASETS.register_module()
class CropDataset(Dataset):
    """Crops of labelled boxes and of clean surface.

    An item is a dict: ``inputs`` (views, 3, size, size), uint8, RGB; ``label``, the number of
    classes standing for the clean surface; ``overlap``, the IoU of the shown box with the labelled
    one, 0 for a clean surface; ``offsets`` (4,), see
    :func:`mmdsym.clip.crop_augmentation.edge_offsets`; ``jittered``, whether the box was moved on
    purpose to measure how well its extent is judged.

    Args:
        ann_file: COCO json of labelled images.
        images_dir: Their folder.
        views: How each box is looked at, as arguments of :class:`mmdsym.clip.views.CropView`.
        size: Side of a crop in pixels.
        clean_per_image: Most crops of clean surface per image.
        seed: Of their places, and of ``jittered_copies``.
        augmentation: Arguments of :class:`mmdsym.clip.crop_augmentation.CropAugmentation`, drawn
            anew each time; ``None`` shows every box as it is labelled. The n-th crop that a process
            shows follows from ``n``, its index and torch's seed when the process began. MMEngine's
            loops by iteration show a resumed run all crops from the first one on, so that it gets
            those that an uninterrupted one would have got.
        balanced: Whether the crops of rare classes are repeated until all classes are as frequent
            as the most frequent one.
        jittered_copies: How many moved copies of each labelled box, always the same ones, come
            after the crops themselves.

    Raises:
        UserError: See :func:`mmdsym.clip.labelled_crops.read_labelled_crops`.
    """

    def __init__(
        self,
        ann_file: str,
        images_dir: str,
        views: Sequence[Mapping] = ({},),
        size: int = 112,
        clean_per_image: int = 2,
        seed: int = 0,
        augmentation: Mapping | None = None,
        balanced: bool = False,
        jittered_copies: int = 0,
    ) -> None:
        super().__init__()
        crops = read_labelled_crops(ann_file, images_dir, clean_per_image, seed)
        self.metainfo = dict(classes=crops.classes)
        self.size = size
        self.seed = seed
        self._views = [CropView(**view) for view in views]
        self._augmentation = None if augmentation is None else CropAugmentation(**augmentation)
        self._turn = Turn()
        self._jitter = self._augmentation or CropAugmentation()
        entries = list(crops.entries())
        order = _balanced_order(crops.labels()) if balanced else range(len(entries))
        self._entries = [entries[index] for index in order]
        defects = [n for n, label in enumerate(crops.labels()) if label < len(crops.classes)]
        self._copies = [entries[index] for index in defects * jittered_copies]

    def __len__(self) -> int:
        return len(self._entries) + len(self._copies)

    def __getitem__(self, index: int) -> dict:
        """Returns one crop."""
        copy = index - len(self._entries)
        if copy >= 0:
            generator = np.random.default_rng([self.seed, copy])
            return self._show(*self._copies[copy], generator, jitter=True, change=False)
        if self._augmentation is None:
            return self._show(*self._entries[index], None, jitter=False, change=False)
        self._turn = self._turn.next()
        generator = np.random.default_rng([self._turn.seed, self._turn.count, index])
        return self._show(*self._entries[index], generator, jitter=True, change=True)

    def _show(
        self,
        image: LabelledImage,
        index: int,
        generator: np.random.Generator | None,
        jitter: bool,
        change: bool,
    ) -> dict:
        label, true_box = int(image.labels[index]), image.boxes[index]
        clean = label == len(self.metainfo['classes'])
        box = self._jitter.jitter(true_box, image.size, generator) if jitter else true_box
        overlap, offsets = 0.0, np.zeros(4)
        if not clean:
            same = image.boxes[image.labels == label]
            overlap, best = best_overlap(box, same)
            offsets = edge_offsets(box, same[best])
        crops = self._cut(image, box)
        if change:
            crops, offsets = self._jitter.turn(crops, offsets, generator)
            crops = self._jitter.relight(crops, generator)
        return dict(
            inputs=crops.round().to(torch.uint8).contiguous(),
            label=label,
            overlap=np.float32(overlap),
            offsets=offsets.astype(np.float32),
            jittered=jitter and not change,
        )

    def _cut(self, image: LabelledImage, box: np.ndarray) -> Tensor:
        pixels = read_rgb(image.path).float()
        boxes = torch.from_numpy(box).float()[None]
        return view_crops(pixels, boxes, self._views, self.size)[0]


def _balanced_order(labels: np.ndarray) -> list[int]:
    """Returns indices in which every label occurs as often as the most frequent one."""
    of_label = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    most = max(len(mine) for mine in of_label)
    return np.concatenate([np.resize(mine, most) for mine in of_label]).tolist()
