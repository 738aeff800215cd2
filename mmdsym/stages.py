"""Training stages: what is trained on what, and for how long (DSYM, arXiv 2507.05588)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from math import inf

from mmdsym.errors import UserError

SOURCES = ('labelled', 'calibration', 'synthetic', 'unlabelled')
LOSSES = ('labelled', 'synthetic', 'unlabelled')


@dataclass(frozen=True)
class Ramp:
    """A weight that moves linearly from ``start`` to ``end`` and then stays.

    Attributes:
        start: Value at the first iteration of the stage.
        end: Value after ``iterations``.
        iterations: Length of the ramp; 0 means ``end`` from the beginning.
    """

    start: float
    end: float
    iterations: int = 0

    def at(self, iteration: int) -> float:
        """Returns the weight ``iteration`` steps after the stage began."""
        if iteration >= self.iterations:
            return self.end
        return self.start + (self.end - self.start) * iteration / self.iterations


@dataclass(frozen=True)
class ThresholdPolicy:
    """How a stage decides which pseudo-labels count.

    With a target precision the per-class thresholds are calibrated on labelled images that were
    held out; ``keep`` and ``drop`` fix them by hand instead.

    Attributes:
        target_precision: Share of kept pseudo-boxes that shall be right, in (0, 1].
        covered_recall: Share of the true boxes found by the teacher that kept and uncertain
            boxes together shall cover, in [0, 1]. Uncertain boxes are ignored by the loss, so
            that a true defect with a low score is not learnt as background.
        least_precision: Boxes with a score at which fewer than this share is right, in [0, 1], are
            dropped even so.
        keep: Fixed score in [0, 1] from which boxes are kept; ``None`` calibrates it.
        drop: Fixed score in [0, 1] below which boxes are dropped; defaults to ``keep``.
    """

    target_precision: float = 0.8
    covered_recall: float = 0.95
    least_precision: float = 0.03
    keep: float | None = None
    drop: float | None = None

    @property
    def fixed(self) -> bool:
        """Whether the thresholds are given by hand."""
        return self.keep is not None


@dataclass(frozen=True)
class Stage:
    """One stage of the training.

    Attributes:
        name: Its name in the config, the log and the report.
        begin: First iteration.
        end: Iteration at which the next stage begins.
        images: Images of each source in a batch on one device.
        loss_weights: Weight of a labelled, synthetic and unlabelled image's loss.
        thresholds: How pseudo-labels are selected.
    """

    name: str
    begin: int
    end: int
    images: Mapping[str, int]
    loss_weights: Mapping[str, Ramp] = field(default_factory=dict)
    thresholds: ThresholdPolicy = field(default_factory=ThresholdPolicy)

    @property
    def uses_teacher(self) -> bool:
        """Whether unlabelled images take part, so that a teacher is needed."""
        return self.images.get('unlabelled', 0) > 0

    @property
    def batch_size(self) -> int:
        """Images in a batch on one device, all sources together."""
        return sum(self.images.values())

    def loss_weight(self, loss: str, iteration: int) -> float:
        """Returns the weight of ``loss`` at the global ``iteration``."""
        return self.loss_weights[loss].at(iteration - self.begin)


class StageSchedule:
    """The stages of a run, checked once and asked by iteration or by name.

    Args:
        stages: Stage name to its settings, in order: ``begin`` and ``end`` (iterations),
            ``images`` (source to images in a batch), ``loss_weights`` (loss to a number or to
            ``dict(start=, end=, iterations=)``, 1 where absent) and ``thresholds`` (see
            :class:`ThresholdPolicy`).

    Raises:
        UserError: A stage has a gap to its neighbour, no labelled image, or an unknown key.
    """

    def __init__(self, stages: Mapping[str, Mapping]) -> None:
        if not stages:
            raise UserError(
                'train_cfg.stages is empty: declare at least one stage, such as '
                'burn_in=dict(begin=0, end=1000, images=dict(labelled=8)).'
            )
        self.stages = tuple(_parse_stage(name, dict(spec)) for name, spec in stages.items())
        expected = 0
        for stage in self.stages:
            if stage.begin != expected:
                raise UserError(
                    f"stage '{stage.name}' begins at iteration {stage.begin}, but {expected} is "
                    f'where the stage before it ends: set its begin to {expected}.'
                )
            expected = stage.end

    @property
    def max_iters(self) -> int:
        """Iterations of the whole run."""
        return self.stages[-1].end

    def at(self, iteration: int) -> Stage:
        """Returns the stage of ``iteration`` (the last stage for any later one)."""
        for stage in self.stages:
            if iteration < stage.end:
                return stage
        return self.stages[-1]

    def named(self, name: str) -> Stage:
        """Returns the stage called ``name``.

        Raises:
            UserError: There is no such stage; the message lists those declared.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        declared = [stage.name for stage in self.stages]
        near = get_close_matches(name, declared, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ''
        raise UserError(
            f"there is no stage '{name}': {hint}The config declares {', '.join(declared)}."
        )


def _parse_stage(name: str, spec: dict) -> Stage:
    _refuse_unknown(
        f"stage '{name}'", spec, ('begin', 'end', 'images', 'loss_weights', 'thresholds')
    )
    for key in ('begin', 'end', 'images'):
        if key not in spec:
            raise UserError(f"stage '{name}' has no {key}: add it to train_cfg.stages.{name}.")
    begin, end = spec['begin'], spec['end']
    if not (isinstance(begin, int) and isinstance(end, int) and 0 <= begin < end):
        raise UserError(
            f"stage '{name}' goes from iteration {begin} to {end}: begin and end must be whole "
            'numbers, and end must lie behind begin.'
        )
    return Stage(
        name=name,
        begin=begin,
        end=end,
        images=_parse_images(name, dict(spec['images'])),
        loss_weights=_parse_loss_weights(name, dict(spec.get('loss_weights') or {})),
        thresholds=_parse_thresholds(name, dict(spec.get('thresholds') or {})),
    )


def _parse_images(name: str, images: dict) -> dict[str, int]:
    _refuse_unknown(f"images of stage '{name}'", images, SOURCES)
    for source, count in images.items():
        if not isinstance(count, int) or count < 0:
            raise UserError(
                f"stage '{name}' asks for {count} {source} images in a batch: give a whole "
                'number from 0.'
            )
    if images.get('labelled', 0) == 0:
        raise UserError(
            f"stage '{name}' has no labelled images in its batch: set images.labelled to 1 or "
            'more, since the supervised loss keeps the student from drifting.'
        )
    return images


def _parse_loss_weights(name: str, weights: dict) -> dict[str, Ramp]:
    _refuse_unknown(f"loss_weights of stage '{name}'", weights, LOSSES)
    ramps = {}
    for loss in LOSSES:
        weight = weights.get(loss, 1.0)
        ramp = Ramp(**weight) if isinstance(weight, Mapping) else Ramp(weight, weight)
        if not (0 <= ramp.start < inf and 0 <= ramp.end < inf and ramp.iterations >= 0):
            raise UserError(
                f"stage '{name}' weighs the {loss} loss by {weight}: give finite numbers from 0."
            )
        ramps[loss] = ramp
    return ramps


def _parse_thresholds(name: str, thresholds: dict) -> ThresholdPolicy:
    _refuse_unknown(
        f"thresholds of stage '{name}'",
        thresholds,
        ('target_precision', 'covered_recall', 'least_precision', 'keep', 'drop'),
    )
    policy = ThresholdPolicy(**thresholds)
    for key in thresholds:
        number = getattr(policy, key)
        if number is not None and not 0 <= number <= 1:
            raise UserError(f"{key} of stage '{name}' is {number}: it must lie between 0 and 1.")
    if policy.drop is not None and policy.keep is None:
        raise UserError(
            f"stage '{name}' fixes drop={policy.drop} without keep: give both, or neither for "
            'scores that are calibrated.'
        )
    return policy


def _refuse_unknown(where: str, given: Mapping, known: tuple[str, ...]) -> None:
    for key in given:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ''
            raise UserError(f"{where} has an unknown '{key}': {hint}Known: {', '.join(known)}.")
