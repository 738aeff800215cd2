"""The second opinion that CLIP gives a teacher-student detector."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from mmdet.structures import SampleList
from mmengine.dist import all_gather_object, get_rank
from mmengine.structures import InstanceData
from torch import Tensor

from mmdsym.errors import UserError
from mmdsym.evaluation import judge_detections
from mmdsym.models import PseudoLabels

from .box_embedder import BoxEmbedder
from .evidence import JoinedEvidence
from .filter_counts import FilterCounts
from .fusion import Fusion
from .image_gate import ImageGate
from .soft_labels import draw_by_weight

MODES = ('hard', 'soft', 'off')
_EXAMPLES = 12
_FEWEST_FOR_VETO = 20


class FeatureScorer(Protocol):
    """What tells classes from features, such as :class:`mmdsym.clip.CLIPScorer`."""

    def score_features(self, features: Tensor, labels: Tensor) -> NamedTuple:
        """Returns ``agreement`` and ``background``, (N,) each, in [0, 1]."""


class Example(NamedTuple):
    """A box to show.

    Attributes:
        path: Of its image.
        box: (x1, y1, x2, y2) in the frame of the original image.
        label: Class index.
        teacher, clip, fused: Scores in [0, 1]; ``clip`` is NaN where CLIP was not asked.
    """

    path: str
    box: tuple[float, float, float, float]
    label: int
    teacher: float
    clip: float
    fused: float


class _Judgement(NamedTuple):
    """What is known of the boxes of a batch before fusion.

    Attributes:
        asked: Per image which boxes CLIP was asked about, (N,), bool.
        evidence: Per image (N, K); columns that need CLIP are meaningless where it was not asked.
        clip_scores: Per image CLIP's own score, NaN where it was not asked.
        defect: Per image the probability of a defect, for the gate; NaN without a gate.
    """

    asked: list[Tensor]
    evidence: list[np.ndarray]
    clip_scores: list[Tensor]
    defect: list[float]


class PseudoLabelFilter:
    """Fuses what teacher and CLIP think of each box into one calibrated probability.

    Only boxes that can become pseudo-labels are shown to CLIP: those from a floor of the teacher's
    score on, at which ``covered_recall`` of the right calibration boxes still lie above it, and of
    those the best ``max_boxes`` of an image. The others are fused with what CLIP says of wrong
    calibration boxes on average, so that nothing recommends them but the teacher. A box with
    coordinates or a score that are not finite, and every box of an image that the gate closes for,
    has the score 0.

    What the fusion learns from are the mistakes that the teacher makes on images like the labelled
    ones, mostly wrong extents. It never sees what else gets into an unlabelled pool, so CLIP has a
    veto besides: a box that agrees with its class less than nearly all right calibration boxes do
    has the score 0, too.

    Before the first calibration, and wherever the fusion has too little to learn from, boxes keep
    the teacher's score.

    Args:
        scorer: Tells classes from features.
        embedder: Computes features.
        evidence: What the fusion looks at.
        crop_kinds: Kinds of the evidence that need features.
        fusion: Over the columns of ``evidence``.
        num_classes: Number of classes.
        gate: Skips images without a defect; ``None`` for none.
        mode: ``'hard'`` or ``'soft'``, see :func:`mmdsym.clip.soft_labels.draw_by_weight`.
        seed: Of the lots that ``'soft'`` draws, together with iteration, rank and image.
        covered_recall: In (0, 1].
        max_boxes: From 1.
        veto_cost: Share of the right calibration boxes that the veto may cost, in [0, 1); 0 for no
            veto.
        clip_column: Column of the evidence with the log-odds of CLIP's own score.
        trust_crops: False where the scorer was found no better than chance: it is never asked.

    Attributes:
        counts: What became of boxes since somebody looked; whoever looks replaces it.
        fits: Number of calibrations so far.
        seconds: Spent on scoring since somebody set it to 0.
    """

    def __init__(
        self,
        scorer: FeatureScorer,
        embedder: BoxEmbedder,
        evidence: JoinedEvidence,
        crop_kinds: Collection[str],
        fusion: Fusion,
        num_classes: int,
        gate: ImageGate | None = None,
        mode: str = 'hard',
        seed: int = 0,
        covered_recall: float = 0.98,
        max_boxes: int = 4,
        veto_cost: float = 0.03,
        clip_column: str = 'class/agreement',
        trust_crops: bool = True,
    ) -> None:
        if not 0 < covered_recall <= 1 or max_boxes < 1 or not 0 <= veto_cost < 1:
            raise UserError(
                f'the CLIP filter cannot have covered_recall={covered_recall}, max_boxes='
                f'{max_boxes} and veto_cost={veto_cost}: give a share above 0 up to 1, 1 or more, '
                'and a share from 0 to below 1.'
            )
        self.scorer = scorer
        self.embedder = embedder
        self.evidence = evidence
        self.crop_kinds = tuple(crop_kinds)
        self.fusion = fusion
        self.num_classes = num_classes
        self.gate = gate
        self.mode = mode
        self.seed = seed
        self.covered_recall = covered_recall
        self.max_boxes = max_boxes
        self.veto_cost = veto_cost
        self.clip_column = clip_column
        self.trust_crops = trust_crops
        self.counts = FilterCounts(num_classes)
        self.kept_examples: deque[Example] = deque(maxlen=_EXAMPLES)
        self.dropped_examples: deque[Example] = deque(maxlen=_EXAMPLES)
        self.fits = 0
        self.seconds = 0.0
        self.floor = 0.0
        self.veto = -math.inf
        self.imputed = torch.zeros(len(self._crop_columns), dtype=torch.float64)

    @property
    def mode(self) -> str:
        """``'hard'`` or ``'soft'``."""
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        if mode not in MODES[:2]:
            raise UserError(f"the CLIP filter has no mode '{mode}': use one of {', '.join(MODES)}.")
        self._mode = mode

    @property
    def wants_candidates(self) -> bool:
        """Whether the detector shall hand on its boxes before suppression."""
        return 'cluster' in self.evidence.kinds

    @property
    def asks_clip(self) -> bool:
        """Whether anything depends on CLIP's opinion on boxes."""
        used = bool(set(self.crop_kinds) & set(self.fusion.kept_kinds))
        return self.trust_crops and (used or self.veto > -math.inf)

    def __call__(self, predictions: list[InstanceData], images: SampleList) -> list[Tensor]:
        """Returns the fused score of each box, and adds ``clip_scores`` to the predictions.

        Args:
            predictions: See :class:`mmdsym.models.PseudoLabelScorer`.
            images: As there.
        """
        began = time.perf_counter()
        judged = self._judge(predictions, images, self.asks_clip)
        scores = []
        for index, found in enumerate(predictions):
            found.clip_scores = judged.clip_scores[index].to(found.scores)
            fused = self._vetoed(self._fuse(judged, index, found), judged, index)
            scores.append(self._gated(fused, judged.defect[index]).to(found.scores))
        self.seconds += time.perf_counter() - began
        return scores

    def fit(
        self, predictions: list[InstanceData], images: SampleList, truths: list[InstanceData]
    ) -> list[Tensor]:
        """Fits floor, gate and fusion, and returns scores by fits that did not see the image.

        Args:
            predictions: See :class:`mmdsym.models.CalibratedScorer`.
            images: As there.
            truths: As there.
        """
        correct = [
            judge_detections(
                found.bboxes, found.scores, found.labels, truth.bboxes, truth.labels
            ).correct
            for found, truth in zip(predictions, truths, strict=True)
        ]
        self._fit_floor(predictions, correct)
        judged = self._judge(predictions, images, self.trust_crops)
        with_defects = [
            probability
            for probability, truth in zip(judged.defect, truths, strict=True)
            if len(truth.bboxes)
        ]
        out_of_fold = self._fit_fusion(judged, predictions, images, correct)
        if self.gate is not None:
            self.gate.fit([p for part in all_gather_object(with_defects) for p in part])
        self.fits += 1
        scores = []
        for index, found in enumerate(predictions):
            fused = self._fuse(judged, index, found)
            fused[judged.asked[index]] = out_of_fold[index]
            fused = self._vetoed(fused, judged, index)
            scores.append(self._gated(fused, judged.defect[index]).to(found.scores))
        return scores

    def revise(
        self, labels: list[PseudoLabels], images: SampleList, iteration: int
    ) -> list[PseudoLabels]:
        """Draws lots where the mode is ``'soft'``, and counts.

        Args:
            labels: See :class:`mmdsym.models.PseudoLabelReviser`.
            images: As there.
            iteration: As there.
        """
        if self.mode == 'soft':
            labels = [
                draw_by_weight(
                    image, np.random.default_rng((self.seed, iteration, get_rank(), index))
                )
                for index, image in enumerate(labels)
            ]
        for image, sample in zip(labels, images, strict=True):
            scores = torch.cat([part.scores for part in image])
            self.counts.count(image, self.gate is not None and not scores.any())
            self.kept_examples.extend(_examples(image.kept, sample.img_path))
            self.dropped_examples.extend(_examples(image.dropped, sample.img_path))
        return labels

    def state_dict(self) -> dict[str, object]:
        """Returns what a resumed run needs, as tensors and plain values."""
        return {
            'fusion': self.fusion.state_dict(),
            'floor': self.floor,
            'veto': self.veto,
            'imputed': self.imputed.clone(),
            'fits': self.fits,
            'counts': self.counts.state_dict(),
            'memory': self.embedder.memory.state_dict(),
            'gate': None if self.gate is None else self.gate.state_dict(),
        }

    def load_state_dict(self, state: Mapping) -> None:
        """Takes over what :meth:`state_dict` returned.

        Raises:
            UserError: It belongs to other evidence or other classes.
        """
        try:
            self.fusion.load_state_dict(state['fusion'])
        except (ValueError, KeyError):
            raise UserError(
                'the checkpoint holds a CLIP filter with other evidence or classes than the '
                'config: resume with the config that the run began with.'
            ) from None
        self.floor = float(state['floor'])
        self.veto = float(state['veto'])
        self.imputed = state['imputed'].cpu().double()
        self.fits = int(state['fits'])
        self.counts.load_state_dict(state['counts'])
        self.embedder.memory.load_state_dict(state['memory'])
        if self.gate is not None and state['gate'] is not None:
            self.gate.load_state_dict(state['gate'])

    @property
    def _crop_columns(self) -> list[int]:
        return [column for kind in self.crop_kinds for column in self.evidence.columns[kind]]

    def _fit_floor(self, predictions: list[InstanceData], correct: list[np.ndarray]) -> None:
        mine = [
            float(score)
            for found, right in zip(predictions, correct, strict=True)
            for score in found.scores.cpu().numpy()[right]
        ]
        scores = [score for part in all_gather_object(mine) for score in part]
        share = 1 - self.covered_recall
        self.floor = float(np.quantile(scores, share, method='lower')) if scores else 0.0

    def _fit_fusion(
        self,
        judged: _Judgement,
        predictions: list[InstanceData],
        images: SampleList,
        correct: list[np.ndarray],
    ) -> list[Tensor]:
        """Fits on the boxes that CLIP was asked about; returns their out-of-fold scores."""
        masks = [asked.numpy() for asked in judged.asked]
        width = len(self.evidence.names)
        rows = [
            (
                np.concatenate([np.zeros((0, width)), judged.evidence[i][mask]]),
                predictions[i].labels.cpu().numpy()[mask],
                correct[i][mask],
                np.full(int(mask.sum()), images[i].img_path, dtype=object),
            )
            for i, mask in enumerate(masks)
        ]
        parts = all_gather_object(rows)
        everyone = [row for part in parts for row in part]
        if not everyone:
            return []
        evidence, labels, right, owners = (np.concatenate(c) for c in zip(*everyone, strict=True))
        probabilities = self.fusion.fit(evidence, labels, right, owners.astype(str))
        self._fit_veto(evidence[right.astype(bool)])
        wrong = evidence[~right.astype(bool)][:, self._crop_columns]
        if len(wrong):
            self.imputed = torch.from_numpy(wrong.mean(axis=0))
        first = sum(len(row[1]) for part in parts[: get_rank()] for row in part)
        mine = probabilities[first : first + sum(int(mask.sum()) for mask in masks)]
        split = np.split(mine, np.cumsum([int(mask.sum()) for mask in masks])[:-1])
        return [torch.from_numpy(np.asarray(part)) for part in split[: len(masks)]]

    def _fit_veto(self, of_right_boxes: np.ndarray) -> None:
        self.veto = -math.inf
        asked = self.trust_crops and self.clip_column in self.evidence.names
        if asked and self.veto_cost and len(of_right_boxes) >= _FEWEST_FOR_VETO:
            agreement = of_right_boxes[:, self.evidence.names.index(self.clip_column)]
            self.veto = float(np.quantile(agreement, self.veto_cost, method='lower'))

    @torch.no_grad()
    def _judge(
        self,
        predictions: list[InstanceData],
        images: SampleList,
        ask_clip: bool,
    ) -> _Judgement:
        asked = [self._worth_asking(found) for found in predictions]
        paths = [sample.img_path for sample in images]
        boxes = [
            found.bboxes.cpu().float()[mask if ask_clip else torch.zeros_like(mask)]
            for found, mask in zip(predictions, asked, strict=True)
        ]
        windows = [self._gate_windows(sample) for sample in images]
        both = [torch.cat(pair) for pair in zip(boxes, windows, strict=True)]
        features = self.embedder.embed(paths, both)
        parts = [
            (found[: len(of_boxes)], found[len(of_boxes) :])
            for found, of_boxes in zip(features, boxes, strict=True)
        ]
        evidence = self._evidence(predictions, images, asked, [part[0] for part in parts])
        return _Judgement(
            asked,
            evidence,
            [
                self._clip_scores(of_image, mask, len(part[0]) > 0)
                for of_image, mask, part in zip(evidence, asked, parts, strict=True)
            ],
            [self._defect_probability(part[1]) for part in parts],
        )

    def _worth_asking(self, found: InstanceData) -> Tensor:
        """Boxes of finite numbers and positive area, from the floor on, at most `max_boxes`."""
        boxes, scores = found.bboxes.cpu(), found.scores.cpu()
        valid = _is_valid(boxes, scores)
        candidates = torch.where(valid & (scores >= self.floor), scores, -torch.inf)
        best = candidates.argsort(descending=True, stable=True)[: self.max_boxes]
        mask = torch.zeros(len(boxes), dtype=torch.bool)
        mask[best] = True
        return mask & candidates.isfinite()

    def _gate_windows(self, sample: object) -> Tensor:
        if self.gate is None:
            return torch.zeros(0, 4)
        height, width = sample.ori_shape[:2]
        return self.gate.windows(width, height)

    def _defect_probability(self, features: Tensor) -> float:
        if self.gate is None:
            return float('nan')
        labels = torch.zeros(len(features), dtype=torch.long)
        background = self.scorer.score_features(features, labels).background
        return self.gate.defect_probability(background)

    def _clip_scores(self, evidence: np.ndarray, mask: Tensor, known: bool) -> Tensor:
        scores = torch.full((len(mask),), torch.nan)
        if known and self.clip_column in self.evidence.names:
            column = torch.from_numpy(evidence[:, self.evidence.names.index(self.clip_column)])
            scores[mask] = column.float().sigmoid()[mask]
        return scores

    def _evidence(
        self,
        predictions: list[InstanceData],
        images: SampleList,
        asked: list[Tensor],
        features: list[Tensor],
    ) -> list[np.ndarray]:
        width = max((part.shape[1] for part in features if len(part)), default=0)
        views, filled = [], []
        for found, sample, mask, part in zip(predictions, images, asked, features, strict=True):
            valid = _is_valid(found.bboxes.cpu(), found.scores.cpu())
            view = InstanceData(
                bboxes=torch.where(valid[:, None], found.bboxes.cpu().float(), 0.0),
                scores=torch.where(valid, found.scores.cpu().float(), 0.0),
                labels=found.labels.cpu(),
            )
            view.set_metainfo(found.metainfo)
            view.set_metainfo(dict(image_size=(sample.ori_shape[1], sample.ori_shape[0])))
            views.append(view)
            of_image = torch.zeros(len(mask), width)
            if len(part):
                of_image[mask] = part
            filled.append(of_image)
        if width:
            return [part.numpy() for part in self.evidence(views, filled)]
        return [part.numpy() for part in self._without_crops(views)]

    def _without_crops(self, views: list[InstanceData]) -> list[Tensor]:
        """The evidence with zeros where features would be needed."""
        result = [torch.zeros(len(view), len(self.evidence.names)) for view in views]
        for kind, evidence in self.evidence.kinds.items():
            if kind not in self.crop_kinds:
                for whole, part in zip(result, evidence(views), strict=True):
                    whole[:, self.evidence.columns[kind]] = part
        return result

    def _fuse(self, judged: _Judgement, index: int, found: InstanceData) -> Tensor:
        evidence = judged.evidence[index].astype(np.float64)
        if len(self._crop_columns):
            unknown = np.ix_(~judged.asked[index].numpy(), self._crop_columns)
            evidence[unknown] = self.imputed.numpy()
        fused = torch.from_numpy(np.asarray(self.fusion(evidence, found.labels.cpu().numpy())))
        valid = _is_valid(found.bboxes.cpu(), found.scores.cpu())
        return torch.where(valid, fused, 0.0)

    def _vetoed(self, scores: Tensor, judged: _Judgement, index: int) -> Tensor:
        if self.veto == -math.inf:
            return scores
        column = self.evidence.names.index(self.clip_column)
        agreement = torch.from_numpy(judged.evidence[index][:, column])
        return torch.where(judged.asked[index] & (agreement < self.veto), 0.0, scores)

    def _gated(self, scores: Tensor, defect: float) -> Tensor:
        closed = self.gate is not None and not self.gate.admits(defect)
        return torch.zeros_like(scores) if closed else scores


def _is_valid(boxes: Tensor, scores: Tensor) -> Tensor:
    finite = boxes.isfinite().all(dim=1) & scores.isfinite()
    return finite & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)


def _examples(found: InstanceData, path: str) -> Sequence[Example]:
    """The two boxes of an image that the teacher likes best."""
    best = found.teacher_scores.argsort(descending=True)[:2].tolist()
    return [
        Example(
            path,
            tuple(found.bboxes[i].tolist()),
            int(found.labels[i]),
            float(found.teacher_scores[i]),
            float(found.clip_scores[i]),
            float(found.scores[i]),
        )
        for i in best
    ]
