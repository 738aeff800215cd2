"""Where the labelled features of a scorer come from, kept on disk by content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmdsym.clip.labelled_crops import LabelledCrops, read_labelled_crops, read_rgb
from mmdsym.clip.prototypes import LabelledFeatures
from mmdsym.errors import UserError

Embed = Callable[[list[Tensor], list[Tensor]], list[Tensor]]
"""Images and boxes to features, as :meth:`mmdsym.clip.encoder.CropEncoder.forward`."""

_FORMAT = 1
_IMAGES_AT_ONCE = 16


@dataclass(frozen=True)
class PrototypeSource:
    """Labelled images that a scorer learns its classes from.

    Args:
        ann_file: COCO json whose crops become the keys.
        held_out_file: COCO json of other labelled images, on which alpha, beta and temperature are
            chosen; ``None`` leaves them as they are.
        images_dir: Folder of the images of both.
        clean_per_image: Most crops of clean surface per image.
        seed: Of their places.
        cache_dir: Where features are kept, under a name that follows from model, annotations and
            images; ``None`` computes them anew each time.
    """

    ann_file: str
    held_out_file: str | None
    images_dir: str
    clean_per_image: int = 2
    seed: int = 0
    cache_dir: str | None = None

    def keys(self, classes: Sequence[str], embed: Embed, model: str) -> LabelledFeatures:
        """Returns the features of the crops that become keys.

        Args:
            classes: The scorer's; the file must have the same.
            embed: Computes them.
            model: Fingerprint of what ``embed`` does.

        Raises:
            UserError: The file or an image is missing, or the classes differ.
        """
        return self._features(self.ann_file, classes, embed, model)

    def held_out(self, classes: Sequence[str], embed: Embed, model: str) -> LabelledFeatures | None:
        """Returns the features of the held-out crops; ``None`` where there are none."""
        if self.held_out_file is None:
            return None
        return self._features(self.held_out_file, classes, embed, model)

    def _features(
        self, ann_file: str, classes: Sequence[str], embed: Embed, model: str
    ) -> LabelledFeatures:
        crops = read_labelled_crops(ann_file, self.images_dir, self.clean_per_image, self.seed)
        if crops.classes != tuple(classes):
            raise UserError(
                f'{ann_file} has the classes {list(crops.classes)}, the CLIP scorer '
                f'{list(classes)}: give both the same data.'
            )
        if self.cache_dir is None:
            return embed_crops(crops, embed)
        path = Path(self.cache_dir) / f'{_content_of(crops, model)}.safetensors'
        found = read_features(path, len(crops.labels()))
        if found is None:
            found = embed_crops(crops, embed)
            write_features(path, found)
        return found


def embed_crops(crops: LabelledCrops, embed: Embed) -> LabelledFeatures:
    """Computes the features of labelled crops, in their order, on the CPU."""
    features = []
    for start in range(0, len(crops.images), _IMAGES_AT_ONCE):
        batch = crops.images[start : start + _IMAGES_AT_ONCE]
        images = [read_rgb(image.path) for image in batch]
        boxes = [torch.from_numpy(image.boxes).float() for image in batch]
        features.extend(found.cpu() for found in embed(images, boxes))
    return LabelledFeatures(torch.cat(features), torch.from_numpy(crops.labels()).long())


def read_features(path: Path, count: int) -> LabelledFeatures | None:
    """Reads features that :func:`write_features` wrote.

    Returns:
        ``None`` where there are none, or where they are damaged, which is told.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        return None
    try:
        content = load_file(path)
        found = LabelledFeatures(content['features'], content['labels'])
        if len(found.features) == len(found.labels) == count and found.features.isfinite().all():
            return found
    except (SafetensorError, KeyError, OSError):
        pass
    print_log(f'{path} is damaged: the CLIP features are computed anew.', logger='current')
    return None


def write_features(path: Path, found: LabelledFeatures) -> None:
    """Writes features; another process sees all of the file or nothing."""
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.{os.getpid()}.partial')
    try:
        content = dict(features=found.features.contiguous(), labels=found.labels)
        partial.write_bytes(save(content))
        with open(partial, 'rb') as stream:
            os.fsync(stream.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _content_of(crops: LabelledCrops, model: str) -> str:
    digest = hashlib.sha256(f'{_FORMAT} {model} {crops.classes}'.encode())
    for image in crops.images:
        digest.update(image.boxes.tobytes() + image.labels.astype('int64').tobytes())
        try:
            digest.update(hashlib.sha256(image.path.read_bytes()).digest())
        except OSError as error:
            raise UserError(
                f'the image {image.path} cannot be read ({type(error).__name__}): prepare the data '
                'again.'
            ) from None
    return digest.hexdigest()[:32]
