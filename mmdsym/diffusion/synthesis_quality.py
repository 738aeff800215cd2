"""Measures a cache of synthetic images, class by class, beside real crops and copy-paste."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from mmdsym.errors import UserError

from .cache_annotations import read_annotations
from .cache_manifest import read_manifest
from .copy_paste import CopyPasteSynthesiser
from .crop_classifier import CropClassifier
from .crop_features import CropFeatures
from .crop_set import CropSet, collect_crops
from .labelled_images import LabelledImage, LabelledImages, read_labelled_images
from .layout_config import parse_layout
from .measures import class_accuracy, kernel_distance, nearness
from .synthesis import Synthesis

ALL_CLASSES = 'all classes'


def read_painted_crops(folder: str | Path) -> CropSet:
    """Returns the painted boxes of a finished cache; those that were there before are left out.

    Raises:
        UserError: There is no finished cache.
    """
    folder = Path(folder)
    content = _annotations_of(folder)
    painted = [box for box in content['annotations'] if box['painted'] is not None]
    classes = [category['name'] for category in content['categories']]
    by_image = {image['id']: [] for image in content['images']}
    for box in painted:
        by_image[box['image_id']].append(box)
    images = [
        _painted_image(folder / 'images' / image['file_name'], image, by_image[image['id']])
        for image in content['images']
    ]
    crops = collect_crops(LabelledImages(images, classes))
    return only_defects(crops)


def _annotations_of(folder: Path) -> dict:
    try:
        return read_annotations(folder)
    except (OSError, ValueError):
        raise UserError(
            f'{folder} is no finished cache of synthetic images: make one with '
            'tools/synthesize.py, and name the folder that holds its manifest.json.'
        ) from None


def _painted_image(path: Path, image: Mapping, painted: list[Mapping]) -> LabelledImage:
    boxes = np.array([box['bbox'] for box in painted], dtype=float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return LabelledImage(
        path=str(path),
        size=(image['width'], image['height']),
        boxes=boxes,
        labels=np.array([box['category_id'] - 1 for box in painted], dtype=int),
        ignored=np.zeros(len(painted), dtype=bool),
    )


def only_defects(crops: CropSet) -> CropSet:
    """Returns the crops without the pieces of clean surface."""
    chosen = crops.labels < len(crops.images.classes)
    return CropSet(crops.images, crops.index[chosen], crops.boxes[chosen], crops.labels[chosen])


def count_held_out_sources(folder: str | Path, held_out: LabelledImages) -> int:
    """Returns how many synthetic images of a cache were made from images that are held out."""
    content = _annotations_of(Path(folder))
    names = {Path(image.path).name for image in held_out}
    return sum(image.get('source') in names for image in content['images'])


def paint_rival(folder: str | Path) -> CropSet:
    """Paints the layouts of a cache again, by copy-paste.

    Raises:
        UserError: The cache has no manifest, or its labelled images are gone.
    """
    path = Path(folder) / 'manifest.json'
    try:
        manifest = read_manifest(path)
        parts, origin = manifest['parts'], manifest['labelled']
        source = dict(ann_file=origin['ann_file'], data_prefix=dict(img=origin['images']))
    except (OSError, ValueError, KeyError):
        raise UserError(
            f'{path} is missing or damaged: run tools/synthesize.py, which rebuilds the cache.'
        ) from None
    synthesis = Synthesis(
        read_labelled_images(dict(type='mmdsym.DefectDataset', **source)),
        CopyPasteSynthesiser(),
        parse_layout(parts['layout']),
        count=parts['count'],
        seed=parts['seed'],
    )
    with tempfile.TemporaryDirectory() as temporary:
        crops = read_painted_crops(synthesis.make_or_find(temporary).folder)
        # The images are gone with the folder, unless they are in memory.
        pixels = [crops.images.pixels(index) for index in range(len(crops.images))]
    return CropSet(_InMemory(crops.images, pixels), crops.index, crops.boxes, crops.labels)


class _InMemory(LabelledImages):
    """Images whose files may be gone."""

    def __init__(self, images: LabelledImages, pixels: list[np.ndarray]) -> None:
        super().__init__(images.images, images.classes)
        self._kept = pixels

    def pixels(self, index: int) -> np.ndarray:
        return self._kept[index]


@dataclass(frozen=True, eq=False)
class _Judged:
    """Crops with all that is measured on them."""

    labels: np.ndarray
    features: Tensor
    probabilities: np.ndarray

    def of(self, label: int | None) -> _Judged:
        """Returns the crops of one class, or all of them."""
        chosen = np.ones(len(self.labels), bool) if label is None else self.labels == label
        return _Judged(self.labels[chosen], self.features[chosen], self.probabilities[chosen])

    @property
    def accuracy(self) -> float | None:
        parts = [
            class_accuracy(self.probabilities[self.labels == label], label)
            for label in np.unique(self.labels)
        ]
        return float(np.mean(parts)) if parts else None


class SynthesisQuality:
    """Measures synthetic crops against real ones.

    Args:
        training: Labelled images that the classifier learns from, and that synthesis may have
            learned from.
        held_out: Labelled images that neither has seen.
        classifier_cache: See :class:`mmdsym.diffusion.crop_classifier.CropClassifier`.

    Raises:
        UserError: The two sets have other classes, or share images.
    """

    def __init__(
        self,
        training: LabelledImages,
        held_out: LabelledImages,
        classifier_cache: str | Path | None = None,
    ) -> None:
        if training.classes != held_out.classes:
            raise UserError(
                f'the training images have the classes {training.classes}, those held out '
                f'{held_out.classes}: name annotation files of one data set.'
            )
        shared = {image.path for image in training} & {image.path for image in held_out}
        if shared:
            raise UserError(
                f'{len(shared)} images are both for training and held out (first: '
                f'{min(shared)}): name annotation files that share none.'
            )
        self.classes = training.classes
        self.classifier = CropClassifier(training, classifier_cache)
        self.extractor = CropFeatures()
        self.training = self.extractor.extract(*_of(only_defects(self.classifier.crops)))
        self.training_labels = only_defects(self.classifier.crops).labels
        self.real = self._judge(collect_crops(held_out))

    def report(self, synthetic: CropSet, rival: CropSet | None = None) -> dict[str, dict]:
        """Returns the measures of each class, of clean surface and of all classes together.

        Args:
            synthetic: Painted crops.
            rival: Crops of the same layouts by copy-paste.

        Returns:
            Class name to ``real``, ``synthetic`` and ``copy_paste``, each with ``crops``,
            ``accuracy`` (of all classes: their mean), ``kernel_distance`` to the real held-out
            crops (of ``real``: from the training crops to these, the floor) and
            ``nearest_training``, the percentiles and the mean of the distances to the nearest
            training crop of the class. What cannot be measured is ``None``.
        """
        sources = {'synthetic': self._judge(synthetic)}
        if rival is not None:
            sources['copy_paste'] = self._judge(rival)
        rows: dict[str, dict] = {}
        for label in [*range(len(self.classes)), None]:
            real = self._real_defects().of(label)
            training = self._training_of(label)
            name = ALL_CLASSES if label is None else self.classes[label]
            rows[name] = {'real': _measure(real, training, training, real.features)}
            for source, judged in sources.items():
                own = judged.of(label)
                rows[name][source] = _measure(own, training, own.features, real.features)
        clean = self.real.of(len(self.classes))
        rows['clean surface'] = {'real': dict(crops=len(clean.labels), accuracy=clean.accuracy)}
        return rows

    def _judge(self, crops: CropSet) -> _Judged:
        return _Judged(
            crops.labels,
            self.extractor.extract(*_of(crops)),
            self.classifier.judge(crops),
        )

    def _real_defects(self) -> _Judged:
        chosen = self.real.labels < len(self.classes)
        return _Judged(
            self.real.labels[chosen], self.real.features[chosen], self.real.probabilities[chosen]
        )

    def _training_of(self, label: int | None) -> Tensor:
        return self.training if label is None else self.training[self.training_labels == label]


def _of(crops: CropSet) -> tuple:
    return crops.pixels(), crops.boxes


def _measure(judged: _Judged, training: Tensor, sample: Tensor, reference: Tensor) -> dict:
    distance = kernel_distance(sample, reference)
    nearest = nearness(judged.features, training)
    return dict(
        crops=len(judged.labels),
        accuracy=judged.accuracy,
        kernel_distance=None if distance is None else asdict(distance),
        nearest_training=None if nearest is None else asdict(nearest),
    )
