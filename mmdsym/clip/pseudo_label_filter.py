"""The second opinion that CLIP gives a teacher-student detector."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from mmdet.structures import SampleList
from mmengine.dist import all_gather_object, get_rank
from mmengine.structures import InstanceData
from torch import Tensor

from mmdsym.errors import UserError
from mmdsym.evaluation import judge_detections
from mmdsym.models import LabelledPredictions, PseudoLabels

from .box_embedder import BoxEmbedder
from .box_opinion import BoxOpinion
from .crop_opinion import CropOpinion, Verdict
from .filter_counts import FilterCounts
from .image_gate import ImageGate
from .soft_labels import draw_by_weight

MODES = ('hard', 'soft', 'off')
_EXAMPLES = 12
_CLOSED = 'image_gate_closed'


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


class _Look(NamedTuple):
    """What CLIP was shown of some images.

    Attributes:
        asked: Which boxes, (N,), bool, for each image.
        features: Of those boxes, (M, D).
        windows: Of the gate's windows, (K, D); none without a gate.
    """

    asked: list[Tensor]
    features: list[Tensor]
    windows: list[Tensor]


class PseudoLabelFilter:
    """Fuses what teacher and CLIP think of each box into one calibrated probability.

    The first opinion comes from the teacher's boxes alone, the second from the crops of the best of
    them. A box that shows nothing of its image (outside of it, without area, or not finite), or
    whose score is not finite, has the score 0, and so has every box of an image that the gate
    closes for. Before the first calibration, and wherever there is too little to learn from, boxes
    keep the teacher's score.

    Args:
        scorer: Tells classes from features; for the gate.
        embedder: Computes features.
        boxes: The first opinion.
        crops: The second one.
        num_classes: Number of classes.
        gate: Skips images without a defect; ``None`` for none.
        mode: ``'hard'`` or ``'soft'``, see :func:`mmdsym.clip.soft_labels.draw_by_weight`.
        seed: Of the lots that ``'soft'`` draws, together with iteration, rank and image.

    Attributes:
        tally: What became of boxes since somebody looked; whoever looks replaces it.
        fits: Number of calibrations so far.
        seconds: Spent on scoring since somebody set it to 0.
    """

    def __init__(
        self,
        scorer: FeatureScorer,
        embedder: BoxEmbedder,
        boxes: BoxOpinion,
        crops: CropOpinion,
        num_classes: int,
        gate: ImageGate | None = None,
        mode: str = 'hard',
        seed: int = 0,
    ) -> None:
        self.scorer = scorer
        self.embedder = embedder
        self.boxes = boxes
        self.crops = crops
        self.num_classes = num_classes
        self.gate = gate
        self.mode = mode
        self.seed = seed
        self.tally = FilterCounts(num_classes)
        self.kept_examples: deque[Example] = deque(maxlen=_EXAMPLES)
        self.dropped_examples: deque[Example] = deque(maxlen=_EXAMPLES)
        self.fits = 0
        self.seconds = 0.0

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
        return 'cluster' in self.boxes.evidence.kinds

    @property
    def wants_turned_view(self) -> bool:
        """Whether the detector shall look at turned images, too."""
        return 'stability' in self.boxes.evidence.kinds

    @property
    def wants_further(self) -> bool:
        """Whether boxes of the teacher's training images may help to fit."""
        return len(self.boxes.evidence.kinds) > 1

    @property
    def kept_kinds(self) -> list[str]:
        """Kinds of evidence that both opinions use at present."""
        of_crops = [] if self.crops.evidence is None else self.crops.fusion.kept_kinds[1:]
        return [*self.boxes.fusion.kept_kinds, *of_crops]

    def report_lines(self) -> list[str]:
        """Says what the last calibration came to, one sentence a line."""
        lines = self.boxes.fusion.report.lines()
        if self.crops.evidence is not None:
            lines += self.crops.fusion.report.lines()
        if self.crops.veto is not None and self.crops.veto.counts:
            lines.append(
                'CLIP turns down images whose most familiar box looks like labelled ones less than '
                + ' and '.join(f'{limit:.3f}' for limit in self.crops.veto.limits)
                + ' (likeness, agreement with the class).'
            )
        elif self.crops.veto is not None and self.crops.veto.reason:
            lines.append(f'CLIP turns down no foreign image: {self.crops.veto.reason}.')
        return lines

    def __call__(self, predictions: list[InstanceData], images: SampleList) -> list[Tensor]:
        """Returns the fused score of each box, and adds ``clip_scores`` to the predictions.

        Their meta information says whether the gate closed for the image, for :meth:`revise`.

        Args:
            predictions: See :class:`mmdsym.models.PseudoLabelScorer`.
            images: As there.
        """
        began = time.perf_counter()
        first = self.boxes(predictions, images)
        look = self._look(predictions, images, first, self.crops.counts)
        verdicts = self.crops(predictions, first, look.asked, look.features)
        closed = self._closed(look)
        for found, verdict, is_closed in zip(predictions, verdicts, closed, strict=True):
            found.clip_scores = verdict.clip.to(found.scores)
            found.set_metainfo({_CLOSED: is_closed})
        scores = _gated(predictions, verdicts, closed)
        self.seconds += time.perf_counter() - began
        return scores

    def fit(
        self,
        predictions: list[InstanceData],
        images: SampleList,
        truths: list[InstanceData],
        further: LabelledPredictions | None = None,
    ) -> list[Tensor]:
        """Fits both opinions and the gate, and returns scores by fits that did not see the image.

        Args:
            predictions: See :class:`mmdsym.models.CalibratedScorer`.
            images: As there.
            truths: As there.
            further: As there.
        """
        correct = _correct(predictions, truths)
        if further is not None:
            self.boxes.learn_further(
                further.predictions, further.images, _correct(further.predictions, further.truths)
            )
        first = self.boxes.fit(predictions, images, correct)
        self.crops.fit_floor(first, correct)
        look = self._look(predictions, images, first, self.crops.evidence is not None)
        verdicts = [Verdict(of_image, of_image) for of_image in first]
        if self.crops.evidence is not None:
            verdicts = self.crops.fit(
                predictions, images, correct, first, look.asked, look.features
            )
        self._fit_gate(look, truths)
        self.fits += 1
        return _gated(predictions, verdicts, self._closed(look))

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
            self.tally.count(image, image.kept.metainfo.get(_CLOSED, False))
            self.kept_examples.extend(_examples(image.kept, sample.img_path))
            self.dropped_examples.extend(_examples(image.dropped, sample.img_path))
        return labels

    def state_dict(self) -> dict[str, object]:
        """Returns what a resumed run needs, as tensors and plain values."""
        return {
            'boxes': self.boxes.state_dict(),
            'crops': self.crops.state_dict(),
            'fits': self.fits,
            'tally': self.tally.state_dict(),
            'memory': self.embedder.memory.state_dict(),
            'gate': None if self.gate is None else self.gate.state_dict(),
        }

    def load_state_dict(self, state: Mapping) -> None:
        """Takes over what :meth:`state_dict` returned.

        Raises:
            UserError: It belongs to other evidence or other classes.
        """
        try:
            self.boxes.load_state_dict(state['boxes'])
            self.crops.load_state_dict(state['crops'])
        except (ValueError, KeyError):
            raise UserError(
                'the checkpoint holds a CLIP filter with other evidence or classes than the '
                'config: resume with the config that the run began with.'
            ) from None
        self.fits = int(state['fits'])
        self.tally.load_state_dict(state['tally'])
        self.embedder.memory.load_state_dict(state['memory'])
        if self.gate is not None and state['gate'] is not None:
            self.gate.load_state_dict(state['gate'])

    @torch.no_grad()
    def _look(
        self,
        predictions: list[InstanceData],
        images: SampleList,
        first: list[Tensor],
        ask: bool,
    ) -> _Look:
        """Embeds the boxes worth it, and the gate's windows, in one forward pass."""
        asked = [
            self.crops.choose(of_image) if ask else torch.zeros(len(found), dtype=torch.bool)
            for found, of_image in zip(predictions, first, strict=True)
        ]
        boxes = [f.bboxes.cpu().float()[mask] for f, mask in zip(predictions, asked, strict=True)]
        windows = [self._gate_windows(sample) for sample in images]
        features = self.embedder.embed(
            [sample.img_path for sample in images],
            [torch.cat(pair) for pair in zip(boxes, windows, strict=True)],
        )
        counts = [len(of_image) for of_image in boxes]
        return _Look(
            asked,
            [found[:count] for found, count in zip(features, counts, strict=True)],
            [found[count:] for found, count in zip(features, counts, strict=True)],
        )

    def _gate_windows(self, sample: object) -> Tensor:
        if self.gate is None:
            return torch.zeros(0, 4)
        height, width = sample.ori_shape[:2]
        return self.gate.windows(width, height)

    def _defect_probability(self, windows: Tensor) -> float:
        labels = torch.zeros(len(windows), dtype=torch.long)
        return self.gate.defect_probability(
            self.scorer.score_features(windows, labels).background.cpu()
        )

    def _fit_gate(self, look: _Look, truths: list[InstanceData]) -> None:
        if self.gate is None:
            return
        mine = [
            self._defect_probability(windows)
            for windows, truth in zip(look.windows, truths, strict=True)
            if len(truth.bboxes)
        ]
        self.gate.fit([value for part in all_gather_object(mine) for value in part])

    def _closed(self, look: _Look) -> list[bool]:
        """Says for which images the gate closes."""
        return [
            self.gate is not None and not self.gate.admits(self._defect_probability(windows))
            for windows in look.windows
        ]


def _gated(
    predictions: list[InstanceData], verdicts: list[Verdict], closed: list[bool]
) -> list[Tensor]:
    """The scores, 0 for images that the gate closes for, where the detector computes."""
    return [
        (torch.zeros_like(v.scores) if is_closed else v.scores).to(found.scores)
        for found, v, is_closed in zip(predictions, verdicts, closed, strict=True)
    ]


def _correct(predictions: list[InstanceData], truths: list[InstanceData]) -> list[np.ndarray]:
    return [
        judge_detections(
            found.bboxes, found.scores, found.labels, truth.bboxes, truth.labels
        ).correct
        for found, truth in zip(predictions, truths, strict=True)
    ]


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
