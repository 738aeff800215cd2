"""What the teacher's boxes say of each other: the first opinion on pseudo-labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from mmdet.structures import SampleList
from mmengine.dist import all_gather_object
from mmengine.structures import InstanceData
from torch import Tensor

from .evidence import JoinedEvidence
from .fit_together import ImageRows, concatenate, fit_together, fuse_together
from .fusion import Fusion
from .judged_boxes import JudgedEvidence
from .views import visible_boxes


class BoxOpinion:
    """Probability of each box to be right, without a look at the image.

    Args:
        evidence: On boxes; the teacher's score first.
        fusion: Over its columns.
    """

    def __init__(self, evidence: JoinedEvidence, fusion: Fusion) -> None:
        self.evidence = evidence
        self.fusion = fusion
        self._further: JudgedEvidence | None = None

    def __call__(self, predictions: list[InstanceData], images: SampleList) -> list[Tensor]:
        """Returns a probability (N,) for each image; 0 for a box that is none.

        Args:
            predictions: See :class:`mmdsym.models.PseudoLabelScorer`.
            images: As there.
        """
        valid = _find_boxes(predictions, images)
        rows = self._rows(predictions, images, valid)
        labels = [found.labels.cpu().numpy() for found in predictions]
        return _masked(fuse_together(self.fusion, rows, labels), valid)

    def fit(
        self, predictions: list[InstanceData], images: SampleList, correct: list[np.ndarray]
    ) -> list[Tensor]:
        """Learns from calibration images, and returns what fits without the image itself say.

        Args:
            predictions: As for the call.
            images: As there.
            correct: Which boxes are right, (N,) each.
        """
        valid = _find_boxes(predictions, images)
        judged = self._judged(predictions, images, valid, correct)
        return _masked(fit_together(self.fusion, judged, self._further), valid)

    def learn_further(
        self, predictions: list[InstanceData], images: SampleList, correct: list[np.ndarray]
    ) -> None:
        """Remembers boxes of labelled images that trained the teacher, to help all fits to come.

        Args:
            predictions: As for :meth:`fit`.
            images: As there.
            correct: As there.
        """
        valid = _find_boxes(predictions, images)
        parts = all_gather_object(self._judged(predictions, images, valid, correct))
        everyone = [image for part in parts for image in part]
        self._further = concatenate(everyone) if everyone else None

    def state_dict(self) -> dict[str, object]:
        """Returns what was learnt, as tensors."""
        further = self._further
        return {
            'fusion': self.fusion.state_dict(),
            'further': None
            if further is None
            else {
                'evidence': torch.from_numpy(further.evidence.astype(np.float32)),
                'labels': torch.from_numpy(further.labels.astype(np.int16)),
                'correct': torch.from_numpy(further.correct),
            },
        }

    def load_state_dict(self, state: Mapping) -> None:
        """Takes over what :meth:`state_dict` returned.

        Raises:
            ValueError: It is of other evidence or of other classes.
        """
        self.fusion.load_state_dict(state['fusion'])
        further = state['further']
        if further is not None:
            further = JudgedEvidence(
                **{name: values.cpu().numpy() for name, values in further.items()}
            )
        self._further = further

    def _judged(
        self,
        predictions: list[InstanceData],
        images: SampleList,
        valid: list[Tensor],
        correct: list[np.ndarray],
    ) -> list[ImageRows]:
        rows = self._rows(predictions, images, valid)
        return [
            ImageRows(evidence, found.labels.cpu().numpy(), right, sample.img_path)
            for evidence, found, right, sample in zip(
                rows, predictions, correct, images, strict=True
            )
        ]

    def _rows(
        self, predictions: list[InstanceData], images: SampleList, valid: list[Tensor]
    ) -> list[np.ndarray]:
        views = [_tidy_view(*of_image) for of_image in zip(predictions, images, valid, strict=True)]
        return [part.numpy() for part in self.evidence(views)]


def _find_boxes(predictions: list[InstanceData], images: SampleList) -> list[Tensor]:
    """Which boxes have a finite score and show something of their image, (N,), on the CPU."""
    results = []
    for found, image in zip(predictions, images, strict=True):
        height, width = image.ori_shape[:2]
        _, visible = visible_boxes(found.bboxes.cpu().float(), (width, height))
        results.append(visible & found.scores.cpu().isfinite())
    return results


def _tidy_view(found: InstanceData, image: object, valid: Tensor) -> InstanceData:
    """An image's boxes on the CPU, with zeros for those that are none, and its size."""
    view = InstanceData(
        bboxes=torch.where(valid[:, None], found.bboxes.cpu().float(), 0.0),
        scores=torch.where(valid, found.scores.cpu().float(), 0.0),
        labels=found.labels.cpu(),
    )
    others = {
        name: _on_cpu(value)
        for name, value in found.metainfo.items()
        if name in ('candidates', 'views')
    }
    view.set_metainfo(others | dict(image_size=(image.ori_shape[1], image.ori_shape[0])))
    return view


def _masked(probabilities: list[np.ndarray], valid: list[Tensor]) -> list[Tensor]:
    """Probabilities, with 0 for boxes that are none."""
    return [
        torch.where(mine, torch.from_numpy(of_image), 0.0)
        for of_image, mine in zip(probabilities, valid, strict=True)
    ]


def _on_cpu(value: InstanceData | list[InstanceData] | None) -> object:
    if isinstance(value, list):
        return [entry.cpu() for entry in value]
    return None if value is None else value.cpu()
