"""What CLIP says of the crops of boxes: the second opinion on pseudo-labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from mmdet.structures import SampleList
from mmengine.dist import all_gather_object
from mmengine.structures import InstanceData
from torch import Tensor

from mmdsym.errors import UserError

from .evidence import JoinedEvidence, logit
from .fit_together import ImageRows, fit_together, fuse_together
from .foreign_veto import ForeignVeto
from .fusion import Fusion

_SCORE_KEPT_BY_FOREIGN = 0.25


class Verdict(NamedTuple):
    """What became of the boxes of one image.

    Attributes:
        scores: Probability of each box to be right, (N,).
        clip: CLIP's own agreement with the class, (N,); NaN where it was not asked.
    """

    scores: Tensor
    clip: Tensor


class CropOpinion:
    """Corrects the first opinion on the boxes likeliest to be right, and vetoes foreign images.

    Crops cost time, so only boxes that can become pseudo-labels are shown to CLIP: those from a
    floor of the first opinion on, above which ``covered_recall`` of the right calibration boxes
    lie, and of those the best ``max_boxes`` of an image. All others keep the first opinion.

    Boxes of an image that the veto turns down keep a quarter of their score: too little to become
    pseudo-labels, enough to be told from what is certainly wrong.

    Args:
        evidence: On crops; ``None`` never asks.
        fusion: Over the log-odds of the first opinion and the columns of ``evidence``, see
            :func:`crop_kinds`.
        covered_recall: In (0, 1].
        max_boxes: From 1.
        veto: Turns down foreign images; ``None`` for none.
        clip_column: Column of the evidence with the log-odds of CLIP's own score.

    Attributes:
        floor: Lowest first opinion at which CLIP is asked.

    Raises:
        UserError: A setting is out of range.
    """

    def __init__(
        self,
        evidence: JoinedEvidence | None,
        fusion: Fusion | None,
        covered_recall: float = 0.9,
        max_boxes: int = 3,
        veto: ForeignVeto | None = None,
        clip_column: str = 'class/agreement',
    ) -> None:
        if not 0 < covered_recall <= 1 or max_boxes < 1:
            raise UserError(
                f'the CLIP filter cannot have covered_recall={covered_recall} and max_boxes='
                f'{max_boxes}: give a share above 0 up to 1, and 1 or more.'
            )
        self.evidence = evidence
        self.fusion = fusion
        self.covered_recall = covered_recall
        self.max_boxes = max_boxes
        self.veto = veto
        names = () if evidence is None else evidence.names
        self._clip_column = names.index(clip_column) if clip_column in names else None
        self.floor = 0.0

    @property
    def counts(self) -> bool:
        """Whether anything depends on CLIP's opinion at present."""
        if self.evidence is None:
            return False
        vetoes = self.veto is not None and self.veto.counts
        return len(self.fusion.kept_kinds) > 1 or vetoes

    def choose(self, first: Tensor) -> Tensor:
        """Says which boxes of an image to show to CLIP, (N,), bool.

        Args:
            first: The first opinion on its boxes, (N,); 0 for those that are none.
        """
        worth = (first > 0) & (first >= self.floor)
        ranked = torch.where(worth, first, -1.0).argsort(descending=True, stable=True)
        chosen = torch.zeros_like(worth)
        chosen[ranked[: self.max_boxes]] = True
        return chosen & worth

    def __call__(
        self,
        predictions: list[InstanceData],
        first: list[Tensor],
        asked: list[Tensor],
        features: list[Tensor],
    ) -> list[Verdict]:
        """Judges the boxes of some images, all of them together, which saves most of the time.

        Args:
            predictions: Per image its boxes.
            first: The first opinion on them, (N,) each.
            asked: Which of them CLIP was shown, (N,) each, bool.
            features: Of those, (M, D) each.
        """
        rows = self._rows(predictions, first, asked, features)
        labels = _labels_of(predictions, asked)
        probabilities: list[np.ndarray] = rows
        if self.fusion is not None:
            probabilities = fuse_together(self.fusion, rows, [mine.numpy() for mine in labels])
        return self._verdicts(first, asked, probabilities, rows, features, labels)

    def fit_floor(self, first: list[Tensor], correct: list[np.ndarray]) -> None:
        """Sets the floor from the first opinion on calibration boxes, out of fold."""
        mine = [of_image.numpy()[right] for of_image, right in zip(first, correct, strict=True)]
        scores = np.concatenate(
            [np.zeros(0), *(x for part in all_gather_object(mine) for x in part)]
        )
        share = 1 - self.covered_recall
        self.floor = float(np.quantile(scores, share, method='lower')) if len(scores) else 0.0

    def fit(
        self,
        predictions: list[InstanceData],
        images: SampleList,
        correct: list[np.ndarray],
        first: list[Tensor],
        asked: list[Tensor],
        features: list[Tensor],
    ) -> list[Verdict]:
        """Learns from the boxes that CLIP was shown; returns what other images say of each.

        Args:
            predictions: Per image its boxes.
            images: Per image its meta data.
            correct: Which boxes are right, (N,) each.
            first: The first opinion, out of fold, (N,) each.
            asked: As for the call, for each image.
            features: Likewise.
        """
        rows = self._rows(predictions, first, asked, features)
        labels = _labels_of(predictions, asked)
        judged = [
            ImageRows(evidence, found.numpy(), np.asarray(right)[mask.numpy()], sample.img_path)
            for evidence, found, mask, right, sample in zip(
                rows, labels, asked, correct, images, strict=True
            )
        ]
        probabilities = fit_together(self.fusion, judged)
        if self.veto is not None:
            self.veto.fit(features, labels, [int(np.sum(right)) for right in correct])
        return self._verdicts(first, asked, probabilities, rows, features, labels)

    def state_dict(self) -> dict[str, object]:
        """Returns what was learnt, as tensors and plain values."""
        fusion = None if self.fusion is None else self.fusion.state_dict()
        limits = None if self.veto is None else torch.from_numpy(self.veto.limits.copy())
        return {'fusion': fusion, 'floor': self.floor, 'veto': limits}

    def load_state_dict(self, state: Mapping) -> None:
        """Takes over what :meth:`state_dict` returned.

        Raises:
            ValueError: It is of other evidence or of other classes.
        """
        if (self.fusion is None) != (state['fusion'] is None):
            raise ValueError('one of state and filter asks CLIP, the other does not.')
        if self.fusion is not None:
            self.fusion.load_state_dict(state['fusion'])
        self.floor = float(state['floor'])
        if self.veto is not None and state['veto'] is not None:
            self.veto.limits = state['veto'].cpu().double().numpy().copy()

    def _rows(
        self,
        predictions: list[InstanceData],
        first: list[Tensor],
        asked: list[Tensor],
        features: list[Tensor],
    ) -> list[np.ndarray]:
        """The evidence on the boxes of each image that CLIP was shown, (M, 1 + K)."""
        if self.evidence is None:
            return [np.zeros((0, 1)) for _ in predictions]
        shown = [
            InstanceData(
                bboxes=found.bboxes.cpu().float()[mask],
                scores=found.scores.cpu().float()[mask],
                labels=found.labels.cpu()[mask],
            )
            for found, mask in zip(predictions, asked, strict=True)
        ]
        return [
            torch.cat([logit(of_image[mask])[:, None].double(), of_crops.double()], dim=1).numpy()
            for of_image, mask, of_crops in zip(
                first, asked, self.evidence(shown, features), strict=True
            )
        ]

    def _verdicts(
        self,
        first: list[Tensor],
        asked: list[Tensor],
        probabilities: list[np.ndarray],
        rows: list[np.ndarray],
        features: list[Tensor],
        labels: list[Tensor],
    ) -> list[Verdict]:
        foreign = [False] * len(first)
        if self.veto is not None:
            foreign = self.veto.rejects(features, labels)
        verdicts = []
        for index, (of_image, mask) in enumerate(zip(first, asked, strict=True)):
            scores, clip = of_image.clone(), torch.full((len(mask),), torch.nan)
            if len(rows[index]):
                scores[mask] = torch.from_numpy(probabilities[index]).to(scores)
                if self._clip_column is not None:
                    agreement = torch.from_numpy(rows[index][:, 1 + self._clip_column])
                    clip[mask] = agreement.float().sigmoid()
            if foreign[index]:
                scores = _SCORE_KEPT_BY_FOREIGN * scores
            verdicts.append(Verdict(scores, clip))
        return verdicts


def _labels_of(predictions: list[InstanceData], asked: list[Tensor]) -> list[Tensor]:
    """Class indices of the boxes of each image that CLIP was shown."""
    return [found.labels.cpu()[mask] for found, mask in zip(predictions, asked, strict=True)]


def crop_kinds(evidence: JoinedEvidence) -> dict[str, list[int]]:
    """Returns the kinds of columns over which the fusion of a :class:`CropOpinion` works."""
    shifted = {
        kind: [1 + column for column in columns] for kind, columns in evidence.columns.items()
    }
    return {'boxes': [0], **shifted}
