"""What a run's last checkpoint finds on the validation images."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import mmdet
import torch
from mmdet.datasets.api_wrappers import COCO
from mmdet.registry import DATASETS
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from tqdm import tqdm

from mmdsym.errors import UserError
from mmdsym.export import build_plain_detector, plain_config
from mmdsym.trained_run import TrainedRun, dataset_for_testing
from mmdsym.version import __version__

from .quiet import quiet

_BATCH_SIZE = 8


@dataclass(frozen=True)
class ValidationData:
    """The validation images of a run.

    Attributes:
        dataset: Images and ground truth with the pipeline for testing.
        classes: Class names, in the order of labels.
    """

    dataset: BaseDataset
    classes: tuple[str, ...]

    @cached_property
    def truth(self) -> COCO:
        """The annotations."""
        with quiet():
            return COCO(self.dataset.ann_file)

    @property
    def category_ids(self) -> list[int]:
        """COCO's category of each label."""
        return list(self.dataset.cat_ids)

    @cached_property
    def paths(self) -> dict[int, Path]:
        """Image id to image file."""
        infos = (self.dataset.get_data_info(index) for index in range(len(self.dataset)))
        return {info['img_id']: Path(info['img_path']) for info in infos}


def open_validation_data(run: TrainedRun) -> ValidationData:
    """Opens the images that the run's config tests on.

    Raises:
        UserError: Annotations or images are not where the config says.
    """
    config = plain_config(run)
    init_default_scope(config.default_scope)
    try:
        with quiet():
            data = ValidationData(DATASETS.build(dataset_for_testing(config)), run.classes)
    except FileNotFoundError as error:
        raise UserError(
            f'the validation images are not there ({error.filename or error}): start from the '
            'folder in which the run was trained, or prepare the data again.'
        ) from error
    missing = [path for path in data.paths.values() if not path.is_file()]
    if missing:
        raise UserError(
            f'the validation image {missing[0]} does not exist ({len(missing)} are missing): '
            'restore it, or prepare the data again.'
        )
    return data


def predict(run: TrainedRun, which: str, data: ValidationData) -> list[dict]:
    """Returns what a network finds on all images, in COCO's format for results.

    Args:
        run: From :func:`mmdsym.trained_run.load_run`.
        which: ``'teacher'`` or ``'student'``; without meaning for a plain detector.
        data: The images.

    Raises:
        UserError: Config and checkpoint do not belong together.
    """
    detector = build_plain_detector(run, which).to(get_device())
    results = []
    starts = range(0, len(data.dataset), _BATCH_SIZE)
    name = which if run.is_pair else 'detector'
    for start in tqdm(starts, desc=f'{name} on the validation images', leave=False, disable=None):
        indices = range(start, min(start + _BATCH_SIZE, len(data.dataset)))
        batch = pseudo_collate([data.dataset[index] for index in indices])
        with torch.inference_mode():
            samples = detector.test_step(batch)
        for index, sample in zip(indices, samples, strict=True):
            image = data.dataset.get_data_info(index)['img_id']
            results += _as_coco(image, sample.pred_instances.cpu(), data.category_ids)
    return results


def _as_coco(image: int, found, category_ids: list[int]) -> list[dict]:
    boxes = found.bboxes.double()
    boxes[:, 2:] -= boxes[:, :2]
    return [
        dict(image_id=image, category_id=category_ids[label], bbox=box, score=score)
        for box, label, score in zip(
            boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
        )
    ]


def origin(run: TrainedRun, which: str, data: ValidationData) -> str:
    """Returns a digest of everything that determines the predictions of a network.

    Of the images, size and time of change stand for their pixels.
    """
    digest = hashlib.sha256(f'{which} {mmdet.__version__} {__version__}'.encode())
    for path in (run.checkpoint_path, Path(data.dataset.ann_file)):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    config = plain_config(run)
    digest.update(json.dumps([config.model, config.test_pipeline], default=str).encode())
    for image, path in data.paths.items():
        state = path.stat()
        digest.update(f'{image} {state.st_size} {state.st_mtime_ns}'.encode())
    return digest.hexdigest()


def encode_predictions(results: list[dict], made_from: str) -> bytes:
    """Returns predictions as a json, with the digest of what they were made from."""
    return json.dumps(dict(made_from=made_from, results=results), separators=(',', ':')).encode()


def read_predictions(path: Path, made_from: str) -> list[dict] | None:
    """Returns predictions that were written earlier, if they were made from the same."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(path.read_bytes())
        if content['made_from'] == made_from:
            return list(content['results'])
    return None
