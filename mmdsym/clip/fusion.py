"""All evidence on a pseudo-box, brought into one calibrated probability."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .logistic import (
    LinearModel,
    average_precision,
    fit_linear,
    log_loss,
    refit_linear,
    sigmoid,
)


@dataclass(frozen=True)
class JudgedEvidence:
    """Boxes with what speaks for them, each found right or wrong.

    Attributes:
        evidence: (N, K).
        labels: Class indices, (N,).
        correct: (N,), bool.
    """

    evidence: np.ndarray
    labels: np.ndarray
    correct: np.ndarray


@dataclass(frozen=True)
class KindReport:
    """What one kind of evidence is worth, cross-validated on the calibration images.

    Attributes:
        kind: Its name.
        kept: Whether the fusion uses it.
        log_loss_without: Log-loss of the kept kinds without it (or, where it was dropped, of the
            kinds that were kept when it went).
        log_loss_with: The same with it.
    """

    kind: str
    kept: bool
    log_loss_without: float
    log_loss_with: float

    @property
    def gain(self) -> float:
        """Fall of the log-loss that it brings, in nats a box."""
        return self.log_loss_without - self.log_loss_with


@dataclass(frozen=True)
class FusionReport:
    """What a fit found.

    Attributes:
        boxes, right: Boxes it was fitted on, and how many of them were right.
        further: Boxes of the teacher's own training images that helped; 0 where they did not.
        teacher_log_loss: Cross-validated, of the teacher's score alone (recalibrated).
        log_loss: Cross-validated, of the fused probability.
        teacher_ap, ap: Average precision over all boxes, of the right boxes among them.
        kinds: One entry for each kind of evidence but the teacher's score.
        fallback: Why the teacher's score is used as it is; empty if it is not.
    """

    boxes: int = 0
    right: int = 0
    teacher_log_loss: float = float('nan')
    log_loss: float = float('nan')
    teacher_ap: float = float('nan')
    ap: float = float('nan')
    kinds: tuple[KindReport, ...] = field(default_factory=tuple)
    fallback: str = ''
    further: int = 0

    def lines(self) -> list[str]:
        """Says it in plain words, one sentence a line."""
        if self.fallback:
            return [f'Pseudo-boxes keep the score of the teacher: {self.fallback}.']
        lines = [
            f'Fusion of {self.boxes} calibration boxes ({self.right} right): log-loss '
            f'{self.teacher_log_loss:.4f} with the teacher alone, {self.log_loss:.4f} fused; AP '
            f'{self.teacher_ap:.3f} and {self.ap:.3f} (cross-validated).'
        ]
        if self.further:
            lines.append(f"{self.further} boxes of the teacher's training images helped to fit.")
        for kind in self.kinds:
            if kind.kept:
                lines.append(f"Evidence '{kind.kind}' lowers the log-loss by {kind.gain:.4f}.")
            else:
                lines.append(
                    f"Evidence '{kind.kind}' adds nothing on the calibration images "
                    f'({kind.gain:+.4f}) and gets weight 0.'
                )
        return lines


class Fusion:
    """L2-regularised logistic regression on standardised evidence, chosen by cross-validation.

    Fitting on the boxes of labelled images that did not train the teacher, it drops, one by one,
    the kinds of evidence without which the cross-validated log-loss is no worse, and chooses the
    strength of regularisation likewise. Classes get offsets that are drawn towards 0. A higher
    score of the teacher never lowers the result, all else being equal. Folds are made of whole
    images; nothing is random.

    Args:
        kinds: Columns of the evidence that belong to each kind, as
            :attr:`mmdsym.clip.JoinedEvidence.columns`; the first kind holds the log-odds of the
            teacher's score in its first column, and is always kept.
        num_classes: Number of classes.
        folds: Number of folds.
        strengths: L2 strengths to choose from, in units of boxes.
        offset_strength: L2 strength of the classes' offsets.
        min_right, min_wrong: Fewer right or wrong boxes than these make it fall back to the
            teacher's score.
        min_gain: Fall of the log-loss, in nats a box, that a kind must bring to be kept.
        crop_kinds: Kinds that boxes of the teacher's own training images cannot teach, because
            what judges them was trained on these very images, too.
    """

    def __init__(
        self,
        kinds: Mapping[str, Sequence[int]],
        num_classes: int,
        folds: int = 5,
        strengths: Sequence[float] = (1.0, 3.0, 10.0, 30.0, 100.0),
        offset_strength: float = 10.0,
        min_right: int = 20,
        min_wrong: int = 20,
        min_gain: float = 0.0005,
        crop_kinds: Collection[str] = ('class', 'extent'),
    ) -> None:
        self.kinds = {name: list(columns) for name, columns in kinds.items()}
        self.num_classes = num_classes
        self.folds = folds
        self.strengths = tuple(strengths)
        self.offset_strength = offset_strength
        self.min_right = min_right
        self.min_wrong = min_wrong
        self.min_gain = min_gain
        self.further_columns = frozenset(
            column
            for kind, columns in self.kinds.items()
            if kind not in crop_kinds
            for column in columns
        )
        self.width = 1 + max(column for columns in self.kinds.values() for column in columns)
        self.report = FusionReport(fallback='nothing has been fitted yet')
        self._reset()

    @property
    def kept_kinds(self) -> tuple[str, ...]:
        """Kinds of evidence in use; what is not among them need not be computed."""
        teacher = next(iter(self.kinds))
        used = {kind for kind, columns in self.kinds.items() if (self._weights[columns] != 0).any()}
        return tuple(kind for kind in self.kinds if kind in used or kind == teacher)

    def fit(
        self,
        evidence: np.ndarray,
        labels: np.ndarray,
        correct: np.ndarray,
        image_ids: np.ndarray,
        further: JudgedEvidence | None = None,
    ) -> np.ndarray:
        """Fits on judged boxes.

        Args:
            evidence: (N, K), as :class:`mmdsym.clip.JoinedEvidence` gives it.
            labels: (N,), class indices.
            correct: (N,), whether each box is right.
            image_ids: (N,), which image it belongs to.
            further: Boxes of labelled images that trained the teacher. How a right box stands
                among others is much the same there, and there are more of them. They count only
                if they lower the log-loss on boxes that they are not among; slope and bias always
                come from the calibration images. Columns of ``crop_kinds`` may hold anything.

        Returns:
            Probabilities (N,) of boxes by fits that did not see their image, to calibrate
            thresholds with. Too few boxes: the teacher's scores.
        """
        self._reset()
        evidence, correct = self._tidy(evidence), np.asarray(correct, dtype=bool)
        labels = np.asarray(labels, dtype=int)
        fold = _fold_of(np.asarray(image_ids), self.folds)
        reason = self._reason_to_fall_back(correct, fold)
        if reason:
            self.report = FusionReport(len(correct), int(correct.sum()), fallback=reason)
            return sigmoid(self._teacher(evidence))
        problem = self._pose(evidence, labels, correct, fold, further)
        kept, strength, reports = self._choose(problem)
        out_of_fold = problem.out_of_fold(self._columns(kept), strength)
        everything = np.ones(len(correct), dtype=bool)
        self._adopt(*problem.fit(everything, self._columns(kept), strength))
        teacher = problem.out_of_fold([self._score_column], strength)
        raw = self._teacher(evidence)
        self.report = FusionReport(
            len(correct),
            int(correct.sum()),
            log_loss(teacher, correct),
            log_loss(out_of_fold, correct),
            average_precision(raw, correct),
            average_precision(out_of_fold, correct),
            reports,
            further=0 if problem.further is None else len(problem.further.correct),
        )
        return out_of_fold

    def __call__(self, evidence: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Returns the probability of each box being right.

        Args:
            evidence: (N, K); columns of dropped kinds may hold anything.
            labels: (N,), class indices.

        Returns:
            (N,), in [0, 1]; before a fit and after one with too few boxes, the teacher's score.
        """
        evidence = self._tidy(evidence)
        if not self._fitted:
            return sigmoid(self._teacher(evidence))
        # The model wants the teacher's score first.
        first = self._score_column
        order = [first, *(column for column in range(self.width) if column != first)]
        model = LinearModel(
            self._mean[order], self._spread[order], self._weights[order], self._offsets, self._bias
        )
        return sigmoid(model.odds(evidence[:, order], np.asarray(labels, dtype=int)))

    def state_dict(self) -> dict[str, Tensor]:
        """Returns what was fitted, as tensors."""
        return {
            'fitted': torch.tensor(self._fitted),
            'mean': torch.from_numpy(self._mean.copy()),
            'spread': torch.from_numpy(self._spread.copy()),
            'weights': torch.from_numpy(self._weights.copy()),
            'offsets': torch.from_numpy(self._offsets.copy()),
            'bias': torch.tensor(self._bias, dtype=torch.float64),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what :meth:`state_dict` returned.

        Raises:
            ValueError: The state is of other evidence or of other classes.
        """
        shapes = {name: tuple(value.shape) for name, value in self.state_dict().items()}
        given = {name: tuple(value.shape) for name, value in state.items()}
        if given != shapes:
            raise ValueError(f'the state of a fusion must have shapes {shapes}, not {given}.')
        self._fitted = bool(state['fitted'])
        for name in ('mean', 'spread', 'weights', 'offsets'):
            setattr(self, f'_{name}', state[name].double().cpu().numpy().copy())
        self._bias = float(state['bias'])
        self.report = FusionReport(fallback='' if self._fitted else 'nothing has been fitted yet')

    def _reset(self) -> None:
        self._fitted = False
        self._mean = np.zeros(self.width)
        self._spread = np.ones(self.width)
        self._weights = np.zeros(self.width)
        self._offsets = np.zeros(self.num_classes)
        self._bias = 0.0

    @property
    def _score_column(self) -> int:
        return next(iter(self.kinds.values()))[0]

    def _teacher(self, evidence: np.ndarray) -> np.ndarray:
        return evidence[:, self._score_column]

    def _tidy(self, evidence: np.ndarray) -> np.ndarray:
        values = np.array(evidence, dtype=np.float64, copy=True)[:, : self.width]
        return np.nan_to_num(values, nan=0.0, posinf=1e6, neginf=-1e6)

    def _pose(
        self,
        evidence: np.ndarray,
        labels: np.ndarray,
        correct: np.ndarray,
        fold: np.ndarray,
        further: JudgedEvidence | None,
    ) -> _Problem:
        """The problem with further boxes if they help, else without."""
        without = _Problem(evidence, labels, correct, fold, self)
        if further is None or not len(further.correct):
            return without
        further = JudgedEvidence(
            self._tidy(further.evidence),
            np.asarray(further.labels, dtype=int),
            np.asarray(further.correct, dtype=bool),
        )
        helped = _Problem(evidence, labels, correct, fold, self, further)
        kinds = list(self.kinds)
        return min((helped, without), key=lambda problem: self._best(problem, kinds)[0])

    def _columns(self, kinds: Sequence[str]) -> list[int]:
        return [column for kind in kinds for column in self.kinds[kind]]

    def _reason_to_fall_back(self, correct: np.ndarray, fold: np.ndarray) -> str:
        right, wrong = int(correct.sum()), int((~correct).sum())
        if right < self.min_right or wrong < self.min_wrong:
            return (
                f'the calibration images show {right} right and {wrong} wrong boxes, fewer than '
                f'the {self.min_right} and {self.min_wrong} that a fusion needs'
            )
        if len(np.unique(fold)) < 2:
            return 'all calibration boxes lie in one image'
        return ''

    def _choose(self, problem: _Problem) -> tuple[list[str], float, tuple[KindReport, ...]]:
        """Drops kinds while the log-loss does not suffer; then judges each that stayed."""
        teacher, *others = self.kinds
        kept = list(others)
        best, strength = self._best(problem, [teacher, *kept])
        reports = {}
        while kept:
            without = {
                kind: self._best(problem, [teacher, *(k for k in kept if k != kind)])
                for kind in kept
            }
            weakest = min(kept, key=lambda kind: without[kind][0])
            if without[weakest][0] - best >= self.min_gain:
                for kind in kept:
                    reports[kind] = KindReport(kind, True, without[kind][0], best)
                break
            reports[weakest] = KindReport(weakest, False, without[weakest][0], best)
            kept.remove(weakest)
            best, strength = without[weakest]
        return [teacher, *kept], strength, tuple(reports[kind] for kind in others)

    def _best(self, problem: _Problem, kinds: Sequence[str]) -> tuple[float, float]:
        """Lowest log-loss of these kinds, and the strength that reaches it."""
        columns = self._columns(kinds)
        return min((problem.loss(columns, strength), strength) for strength in self.strengths)

    def _adopt(self, columns: Sequence[int], model: LinearModel) -> None:
        self._fitted = True
        self._mean[columns] = model.mean
        self._spread[columns] = model.spread
        self._weights[columns] = model.weights
        self._offsets = model.offsets
        self._bias = model.bias


class _Problem:
    """Judged boxes in folds, and boxes that help to fit but are never judged by."""

    def __init__(
        self,
        evidence: np.ndarray,
        labels: np.ndarray,
        correct: np.ndarray,
        fold: np.ndarray,
        settings: Fusion,
        further: JudgedEvidence | None = None,
    ) -> None:
        self.evidence = evidence
        self.labels = labels
        self.correct = correct
        self.fold = fold
        self.num_classes = settings.num_classes
        self.offset_strength = settings.offset_strength
        self.further = further
        self.further_columns = settings.further_columns

    def loss(self, columns: Sequence[int], strength: float) -> float:
        return log_loss(self.out_of_fold(columns, strength), self.correct)

    def out_of_fold(self, columns: Sequence[int], strength: float) -> np.ndarray:
        result = np.zeros(len(self.correct))
        for fold in np.unique(self.fold):
            held_out = self.fold == fold
            ordered, model = self.fit(~held_out, columns, strength)
            odds = model.odds(self.evidence[held_out][:, ordered], self.labels[held_out])
            result[held_out] = sigmoid(odds)
        return result

    def fit(
        self, chosen: np.ndarray, columns: Sequence[int], strength: float
    ) -> tuple[list[int], LinearModel]:
        """Fits the chosen boxes; returns the columns in the order of the model, and the model."""
        evidence, labels, right = (x[chosen] for x in (self.evidence, self.labels, self.correct))
        settings = (self.num_classes, strength, self.offset_strength)
        if self.further is None:
            ordered = list(columns)
            return ordered, fit_linear(evidence[:, ordered], labels, right, *settings)
        shared = [column for column in columns if column in self.further_columns]
        alone = [column for column in columns if column not in self.further_columns]
        model = fit_linear(
            np.concatenate([evidence[:, shared], self.further.evidence[:, shared]]),
            np.concatenate([labels, self.further.labels]),
            np.concatenate([right, self.further.correct]),
            *settings,
        )
        refitted = refit_linear(
            model, evidence[:, shared], evidence[:, alone], labels, right, strength
        )
        return shared + alone, refitted


def _fold_of(image_ids: np.ndarray, folds: int) -> np.ndarray:
    """Deals images to folds in turn, in the order of their ids."""
    _, rank = np.unique(image_ids, return_inverse=True)
    return rank.reshape(-1) % folds
