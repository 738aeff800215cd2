"""All evidence on a pseudo-box, brought into one calibrated probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from .fusion_report import FusionReport, KindReport
from .judged_boxes import CrossValidation, JudgedEvidence, fold_of
from .logistic import LinearModel, average_precision, log_loss, sigmoid

_UNFITTED = 'nothing has been fitted yet'


class Fusion:
    """L2-regularised logistic regression on standardised evidence, chosen by cross-validation.

    Fitting on the boxes of labelled images that did not train the teacher, it drops, one by one,
    the kinds of evidence without which the cross-validated log-loss is no worse, and chooses the
    strength of regularisation likewise. Classes get offsets that are drawn towards 0. A higher
    prior score never lowers the result, all else being equal. Folds are made of whole images;
    nothing is random.

    Args:
        kinds: Columns of the evidence that belong to each kind, as
            :attr:`mmdsym.clip.JoinedEvidence.columns`; the first kind holds the log-odds of the
            prior score, such as the teacher's, in its first column, and is always kept.
        num_classes: Number of classes.
        folds: Number of folds.
        strengths: L2 strengths to choose from, in units of boxes.
        offset_strength: L2 strength of the classes' offsets.
        min_right, min_wrong: Fewer right or wrong boxes than these make it fall back to the
            prior score.
        min_gain: Fall of the log-loss, in nats for each right box, that a kind must bring to be
            kept. (Wrong boxes are many more, and most are no riddle.)
        prior: What the prior score is, in words for the log.
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
        min_gain: float = 0.002,
        prior: str = 'the teacher',
    ) -> None:
        self.kinds = {name: list(columns) for name, columns in kinds.items()}
        self.num_classes = num_classes
        self.folds = folds
        self.strengths = tuple(strengths)
        self.offset_strength = offset_strength
        self.min_right = min_right
        self.min_wrong = min_wrong
        self.min_gain = min_gain
        self.prior = prior
        self.width = 1 + max(column for columns in self.kinds.values() for column in columns)
        self.report = FusionReport(prior, fallback=_UNFITTED)
        self._reset()

    @property
    def kept_kinds(self) -> tuple[str, ...]:
        """Kinds of evidence in use; what is not among them need not be computed."""
        first = next(iter(self.kinds))
        used = {kind for kind, columns in self.kinds.items() if (self._weights[columns] != 0).any()}
        return tuple(kind for kind in self.kinds if kind in used or kind == first)

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
                come from the calibration images.

        Returns:
            Probabilities (N,) of boxes by fits that did not see their image, to calibrate
            thresholds with. Too few boxes: the prior scores.
        """
        self._reset()
        boxes = self._tidied(JudgedEvidence(evidence, labels, correct))
        fold = fold_of(np.asarray(image_ids), self.folds)
        reason = self._reason_to_fall_back(boxes.correct, fold)
        if reason:
            self.report = FusionReport(
                self.prior, len(fold), int(boxes.correct.sum()), fallback=reason
            )
            return sigmoid(boxes.evidence[:, self._prior_column])
        problem, strength = self._pose(boxes, fold, further)
        kept, reports = self._choose(problem, strength)
        strength = self._best_strength(problem, kept)
        columns = self._columns(kept)
        self._adopt(columns, problem.fit(columns, strength))
        out_of_fold = problem.out_of_fold(columns, strength)
        self.report = self._report(problem, strength, out_of_fold, reports)
        return out_of_fold

    def __call__(self, evidence: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Returns the probability of each box being right.

        Args:
            evidence: (N, K); columns of dropped kinds may hold anything.
            labels: (N,), class indices.

        Returns:
            (N,), in [0, 1]; before a fit and after one with too few boxes, the prior score.
        """
        evidence = self._tidy(evidence)
        if not self._fitted:
            return sigmoid(evidence[:, self._prior_column])
        # The model wants the prior score first.
        first = self._prior_column
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
        self.report = FusionReport(self.prior, fallback='' if self._fitted else _UNFITTED)

    def _reset(self) -> None:
        self._fitted = False
        self._mean = np.zeros(self.width)
        self._spread = np.ones(self.width)
        self._weights = np.zeros(self.width)
        self._offsets = np.zeros(self.num_classes)
        self._bias = 0.0

    @property
    def _prior_column(self) -> int:
        return next(iter(self.kinds.values()))[0]

    def _tidy(self, evidence: np.ndarray) -> np.ndarray:
        values = np.array(evidence, dtype=np.float64, copy=True)[:, : self.width]
        return np.nan_to_num(values, nan=0.0, posinf=1e6, neginf=-1e6)

    def _tidied(self, boxes: JudgedEvidence) -> JudgedEvidence:
        return JudgedEvidence(
            self._tidy(boxes.evidence),
            np.asarray(boxes.labels, dtype=int),
            np.asarray(boxes.correct, dtype=bool),
        )

    def _pose(
        self, boxes: JudgedEvidence, fold: np.ndarray, further: JudgedEvidence | None
    ) -> tuple[CrossValidation, float]:
        """The problem, with further boxes if they help, and the strength that suits it."""
        settings = (boxes, fold, self.num_classes, self.offset_strength)
        problems = [CrossValidation(*settings)]
        if further is not None and len(further.correct):
            problems.append(CrossValidation(*settings, self._tidied(further)))
        columns = self._columns(self.kinds)
        candidates = [
            (problem.loss(columns, strength), index, strength)
            for index, problem in enumerate(problems)
            for strength in self.strengths
        ]
        _, index, strength = min(candidates)
        return problems[index], strength

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

    def _choose(
        self, problem: CrossValidation, strength: float
    ) -> tuple[list[str], tuple[KindReport, ...]]:
        """Drops kinds while the log-loss does not suffer; then judges each that stayed."""
        first, *others = self.kinds

        boxes_to_a_right_one = 1 / problem.boxes.correct.mean()

        def loss(kinds: Sequence[str]) -> float:
            return problem.loss(self._columns([first, *kinds]), strength) * boxes_to_a_right_one

        kept, best, reports = list(others), loss(others), {}
        while kept:
            without = {kind: loss([k for k in kept if k != kind]) for kind in kept}
            weakest = min(kept, key=without.__getitem__)
            if without[weakest] - best >= self.min_gain:
                for kind in kept:
                    reports[kind] = KindReport(kind, True, without[kind], best)
                break
            reports[weakest] = KindReport(weakest, False, without[weakest], best)
            kept.remove(weakest)
            best = without[weakest]
        return [first, *kept], tuple(reports[kind] for kind in others)

    def _best_strength(self, problem: CrossValidation, kinds: Sequence[str]) -> float:
        columns = self._columns(kinds)
        return min(self.strengths, key=lambda strength: problem.loss(columns, strength))

    def _report(
        self,
        problem: CrossValidation,
        strength: float,
        out_of_fold: np.ndarray,
        kinds: tuple[KindReport, ...],
    ) -> FusionReport:
        correct = problem.boxes.correct
        prior = problem.boxes.evidence[:, self._prior_column]
        return FusionReport(
            self.prior,
            len(correct),
            int(correct.sum()),
            problem.loss([self._prior_column], strength),
            log_loss(out_of_fold, correct),
            average_precision(prior, correct),
            average_precision(out_of_fold, correct),
            kinds,
            further=0 if problem.further is None else len(problem.further.correct),
        )

    def _adopt(self, columns: Sequence[int], model: LinearModel) -> None:
        self._fitted = True
        self._mean[columns] = model.mean
        self._spread[columns] = model.spread
        self._weights[columns] = model.weights
        self._offsets = model.offsets
        self._bias = model.bias
