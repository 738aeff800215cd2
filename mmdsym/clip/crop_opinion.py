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
from .fit_together import ImageRows, fit_together
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
        self, found: InstanceData, first: Tensor, asked: Tensor, features: Tensor
    ) -> Verdict:
        """Judges the boxes of one image.

        Args:
            found: Its boxes.
            first: The first opinion on them, (N,).
            asked: Which of them CLIP was shown, (N,), bool.
            features: Of those, (M, D).
        """
        rows = self._rows(found, first, asked, features)
        scores = first.clone()
        if len(rows):
            labels = found.labels.cpu()[asked].numpy()
            scores[asked] = torch.from_numpy(np.asarray(self.fusion(rows, labels)))
        return self._verdict(found, scores, rows, asked, features)

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
        rows = [
            self._rows(*of_image)
            for of_image in zip(predictions, first, asked, features, strict=True)
        ]
        judged = [
            ImageRows(
                evidence,
                found.labels.cpu()[mask].numpy(),
                np.asarray(right)[mask.numpy()],
                sample.img_path,
            )
            for evidence, found, mask, right, sample in zip(
                rows, predictions, asked, correct, images, strict=True
            )
        ]
        probabilities = fit_together(self.fusion, judged)
        if self.veto is not None:
            labels = [f.labels.cpu()[mask] for f, mask in zip(predictions, asked, strict=True)]
            self.veto.fit(features, labels, [int(np.sum(right)) for right in correct])
        verdicts = []
        for index, found in enumerate(predictions):
            scores = first[index].clone()
            scores[asked[index]] = torch.from_numpy(probabilities[index])
            verdicts.append(
                self._verdict(found, scores, rows[index], asked[index], features[index])
            )
        return verdicts

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
        self, found: InstanceData, first: Tensor, asked: Tensor, features: Tensor
    ) -> np.ndarray:
        """The evidence on the boxes that CLIP was shown, (M, 1 + K)."""
        if self.evidence is None or not asked.any():
            return np.zeros((0, 1 + (0 if self.evidence is None else len(self.evidence.names))))
        shown = InstanceData(
            bboxes=found.bboxes.cpu().float()[asked],
            scores=found.scores.cpu().float()[asked],
            labels=found.labels.cpu()[asked],
        )
        of_crops = self.evidence([shown], [features])[0].double()
        return torch.cat([logit(first[asked])[:, None].double(), of_crops], dim=1).numpy()

    def _verdict(
        self,
        found: InstanceData,
        scores: Tensor,
        rows: np.ndarray,
        asked: Tensor,
        features: Tensor,
    ) -> Verdict:
        clip = torch.full((len(asked),), torch.nan)
        if not len(rows):
            return Verdict(scores, clip)
        if self._clip_column is not None:
            agreement = torch.from_numpy(rows[:, 1 + self._clip_column])
            clip[asked] = agreement.float().sigmoid()
        if self.veto is not None and self.veto.rejects(features, found.labels.cpu()[asked]):
            return Verdict(_SCORE_KEPT_BY_FOREIGN * scores, clip)
        return Verdict(scores, clip)


def crop_kinds(evidence: JoinedEvidence) -> dict[str, list[int]]:
    """Returns the kinds of columns over which the fusion of a :class:`CropOpinion` works."""
    shifted = {
        kind: [1 + column for column in columns] for kind, columns in evidence.columns.items()
    }
    return {'boxes': [0], **shifted}
