"""All evidence on a pseudo-box, brought into one calibrated probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

LARGEST_Z = 5.0
"""Standardised evidence is cut here, so that no odd box leaves the range that was fitted."""


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

    def lines(self) -> list[str]:
        """Says it in plain words, one sentence a line."""
        if self.fallback:
            return [f'Pseudo-boxes keep the score of the teacher: {self.fallback}.']
        lines = [
            f'Fusion of {self.boxes} calibration boxes ({self.right} right): log-loss '
            f'{self.teacher_log_loss:.4f} with the teacher alone, {self.log_loss:.4f} fused; AP '
            f'{self.teacher_ap:.3f} and {self.ap:.3f} (cross-validated).'
        ]
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
    ) -> None:
        self.kinds = {name: list(columns) for name, columns in kinds.items()}
        self.num_classes = num_classes
        self.folds = folds
        self.strengths = tuple(strengths)
        self.offset_strength = offset_strength
        self.min_right = min_right
        self.min_wrong = min_wrong
        self.min_gain = min_gain
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
        self, evidence: np.ndarray, labels: np.ndarray, correct: np.ndarray, image_ids: np.ndarray
    ) -> np.ndarray:
        """Fits on judged boxes.

        Args:
            evidence: (N, K), as :class:`mmdsym.clip.JoinedEvidence` gives it.
            labels: (N,), class indices.
            correct: (N,), whether each box is right.
            image_ids: (N,), which image it belongs to.

        Returns:
            Probabilities (N,) of boxes by fits that did not see their image, to calibrate
            thresholds with. Too few boxes: the teacher's scores.
        """
        self._reset()
        evidence, correct = _finite(evidence), np.asarray(correct, dtype=bool)
        fold = _fold_of(np.asarray(image_ids), self.folds)
        reason = self._reason_to_fall_back(correct, fold)
        if reason:
            self.report = FusionReport(len(correct), int(correct.sum()), fallback=reason)
            return _sigmoid(self._teacher(evidence))
        problem = _Problem(evidence, np.asarray(labels, dtype=int), correct, fold, self)
        kept, strength, reports = self._choose(problem)
        out_of_fold = problem.out_of_fold(self._columns(kept), strength)
        model = problem.fit_all(self._columns(kept), strength)
        self._adopt(model, self._columns(kept))
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
        evidence = _finite(evidence)
        if not self._fitted:
            return _sigmoid(self._teacher(evidence))
        z = ((evidence - self._mean) / self._spread).clip(-LARGEST_Z, LARGEST_Z)
        offsets = self._offsets[np.asarray(labels, dtype=int)]
        # The teacher's score is left uncut: a better one is never worth less.
        z[:, self._score_column] = self._score_z(evidence)
        return _sigmoid(z @ self._weights + offsets + self._bias)

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

    def _score_z(self, evidence: np.ndarray) -> np.ndarray:
        column = self._score_column
        return (evidence[:, column] - self._mean[column]) / self._spread[column]

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

    def _adopt(self, model: _Model, columns: Sequence[int]) -> None:
        self._fitted = True
        self._mean[columns] = model.mean
        self._spread[columns] = model.spread
        self._weights[columns] = model.weights
        self._offsets = model.offsets
        self._bias = model.bias


@dataclass(frozen=True)
class _Model:
    """A fitted regression on some columns; the first is the teacher's score."""

    mean: np.ndarray
    spread: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    bias: float

    def __call__(self, values: np.ndarray, labels: np.ndarray) -> np.ndarray:
        z = (values - self.mean) / self.spread
        z[:, 1:] = z[:, 1:].clip(-LARGEST_Z, LARGEST_Z)
        return _sigmoid(z @ self.weights + self.offsets[labels] + self.bias)


class _Problem:
    """Judged boxes in folds."""

    def __init__(
        self,
        evidence: np.ndarray,
        labels: np.ndarray,
        correct: np.ndarray,
        fold: np.ndarray,
        settings: Fusion,
    ) -> None:
        self.evidence = evidence
        self.labels = labels
        self.correct = correct
        self.fold = fold
        self.num_classes = settings.num_classes
        self.offset_strength = settings.offset_strength

    def loss(self, columns: Sequence[int], strength: float) -> float:
        return log_loss(self.out_of_fold(columns, strength), self.correct)

    def out_of_fold(self, columns: Sequence[int], strength: float) -> np.ndarray:
        result = np.zeros(len(self.correct))
        for fold in np.unique(self.fold):
            held_out = self.fold == fold
            model = self._fit(~held_out, columns, strength)
            result[held_out] = model(self.evidence[held_out][:, columns], self.labels[held_out])
        return result

    def fit_all(self, columns: Sequence[int], strength: float) -> _Model:
        return self._fit(np.ones(len(self.correct), dtype=bool), columns, strength)

    def _fit(self, chosen: np.ndarray, columns: Sequence[int], strength: float) -> _Model:
        values = self.evidence[chosen][:, columns]
        mean = values.mean(axis=0)
        spread = values.std(axis=0)
        spread = np.where(spread > 1e-6, spread, 1.0)
        z = (values - mean) / spread
        z[:, 1:] = z[:, 1:].clip(-LARGEST_Z, LARGEST_Z)
        one_hot = np.eye(self.num_classes)[self.labels[chosen]]
        design = np.concatenate([z, one_hot, np.ones((len(z), 1))], axis=1)
        # The teacher's score is hardly held back, the intercept not at all.
        penalty = np.concatenate(
            [
                [min(1.0, strength)],
                np.full(len(columns) - 1, strength),
                np.full(self.num_classes, self.offset_strength),
                [1e-6],
            ]
        )
        solution = fit_logistic(design, self.correct[chosen], penalty)
        if solution[0] < 0:
            penalty[0] = 1e9  # a better score is never worth less
            solution = fit_logistic(design, self.correct[chosen], penalty)
            solution[0] = 0.0
        count = len(columns)
        return _Model(mean, spread, solution[:count], solution[count:-1], float(solution[-1]))


def fit_logistic(
    design: np.ndarray, correct: np.ndarray, penalty: np.ndarray, steps: int = 50
) -> np.ndarray:
    """Minimises log-loss plus ``penalty / 2`` times the squared weights, by Newton's method.

    Args:
        design: (N, K).
        correct: (N,), bool.
        penalty: (K,), positive.
        steps: Most steps; about eight are needed.

    Returns:
        Weights, (K,).
    """
    target = correct.astype(np.float64)
    weights = np.zeros(design.shape[1])

    def objective(candidate: np.ndarray) -> float:
        odds = design @ candidate
        return float((np.logaddexp(0, odds) - target * odds).sum() + penalty @ candidate**2 / 2)

    value = objective(weights)
    for _ in range(steps):
        probability = _sigmoid(design @ weights)
        gradient = design.T @ (probability - target) + penalty * weights
        curvature = (design * (probability * (1 - probability))[:, None]).T @ design
        step = np.linalg.solve(curvature + np.diag(penalty), gradient)
        size = 1.0
        while size > 1e-4 and objective(weights - size * step) > value:
            size /= 2
        weights = weights - size * step
        previous, value = value, objective(weights)
        if previous - value < 1e-9 * max(1.0, abs(previous)):
            break
    return weights


def log_loss(probabilities: np.ndarray, correct: np.ndarray) -> float:
    """Mean negative log-likelihood in nats, of probabilities cut to [1e-6, 1 - 1e-6]."""
    p = np.clip(probabilities, 1e-6, 1 - 1e-6)
    return float(-np.where(correct, np.log(p), np.log1p(-p)).mean())


def average_precision(scores: np.ndarray, correct: np.ndarray) -> float:
    """Mean precision at the right boxes, best score first; NaN without any right box."""
    order = np.argsort(-scores, kind='stable')
    right = np.asarray(correct, dtype=bool)[order]
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    return float(precision[right].mean()) if right.any() else float('nan')


def _fold_of(image_ids: np.ndarray, folds: int) -> np.ndarray:
    """Deals images to folds in turn, in the order of their ids."""
    _, rank = np.unique(image_ids, return_inverse=True)
    return rank.reshape(-1) % folds


def _finite(evidence: np.ndarray) -> np.ndarray:
    values = np.array(evidence, dtype=np.float64, copy=True)
    return np.nan_to_num(values, nan=0.0, posinf=1e6, neginf=-1e6)


def _sigmoid(odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(odds, -60, 60)))
