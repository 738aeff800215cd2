"""Puts CLIP's second opinion on pseudo-labels into training, and says what it does there."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdsym.engine.hooks.stage_hook import dsym_model
from mmdsym.errors import UserError
from mmdsym.evaluation.held_out_quality import is_better_than_chance
from mmdsym.registry import HOOKS
from mmdsym.trained_run import CLIP_FILTER_STATE

from .filter_building import build_filter
from .filter_counts import FilterCounts
from .filter_sheet import draw_filter_sheet
from .pseudo_label_filter import MODES, PseudoLabelFilter


@HOOKS.register_module()
class CLIPPseudoLabelFilterHook(Hook):
    """Gives the detector a scorer that fuses the teacher's score with what CLIP sees.

    The thresholds of :class:`mmdsym.engine.ThresholdCalibrationHook` then apply to fused scores,
    which are calibrated probabilities; floor and fusion are fitted anew with each calibration.

    Modes: ``'hard'`` leaves what the thresholds decide; ``'soft'`` lets each kept box take part
    with the probability that its score is; ``'off'`` computes nothing and leaves the teacher's
    score. State goes into the checkpoint, so that a resumed run makes the same pseudo-labels. (In
    distributed training the remembered boxes are those of rank 0; for an exact resume there,
    switch their reuse off.)

    Args:
        scorer: Config of a scorer, such as ``dict(type='mmdsym.CLIPScorer', ...)``.
        labelled: ``dict(ann_file=..., images_dir=...)``: labelled images, without those held out
            for calibration, from which evidence learns shapes and extent of true boxes.
        mode: For stages that ``schedule`` does not name.
        schedule: Name of a stage to its mode.
        evidence: Kinds of evidence to fuse, see :func:`mmdsym.clip.filter_building.build_filter`.
        gate: Arguments of :class:`mmdsym.clip.image_gate.ImageGate`; ``None`` for no gate.
        reuse: Arguments of :class:`mmdsym.clip.embedding_reuse.EmbeddingMemory`;
            ``dict(megabytes=0)`` switches it off.
        fusion: Further arguments of :class:`mmdsym.clip.Fusion`.
        crops: Arguments of :class:`mmdsym.clip.CropOpinion`, such as ``max_boxes``, the most boxes
            of an image to show to CLIP, and ``veto_cost``.
        seed: Of the lots of ``'soft'``; by default the run's.
        interval: Iterations between two lines of the log.
        sheet_interval: Iterations between two sheets of kept and dropped boxes; 0 for none.

    Raises:
        UserError: Unknown mode or stage, or whatever is wrong with the scorer.
    """

    # After StageHook, before thresholds are calibrated.
    priority = 'HIGH'

    def __init__(
        self,
        scorer: Mapping,
        labelled: Mapping,
        mode: str = 'hard',
        schedule: Mapping[str, str] | None = None,
        evidence: Sequence[str] | None = None,
        gate: Mapping | None = None,
        reuse: Mapping | None = None,
        fusion: Mapping | None = None,
        crops: Mapping | None = None,
        seed: int | None = None,
        interval: int = 50,
        sheet_interval: int = 500,
    ) -> None:
        self.schedule = dict(schedule or {})
        for value in (mode, *self.schedule.values()):
            if value not in MODES:
                raise UserError(
                    f"the CLIP filter has no mode '{value}': use one of {', '.join(MODES)}."
                )
        self.mode = mode
        self.settings = dict(
            scorer=scorer,
            labelled=labelled,
            evidence=evidence,
            gate=gate,
            reuse=reuse,
            fusion=fusion,
            crops=crops,
        )
        self.seed = seed
        self.interval = interval
        self.sheet_interval = sheet_interval
        self.filter: PseudoLabelFilter | None = None
        self._state: Mapping | None = None
        self._told_fits = 0
        self._began = self._iteration_seconds = self._filter_seconds = 0.0

    def before_train(self, runner: Runner) -> None:
        """Builds the filter, unless no stage uses it."""
        for name in self.schedule:
            runner.train_loop.schedule.named(name)
        stages = [stage for stage in runner.train_loop.schedule.stages if stage.uses_teacher]
        if all(self._mode_of(stage.name) == 'off' for stage in stages):
            return
        model = dsym_model(runner)
        classes = tuple(runner.train_dataloader.dataset.metainfo['classes'])
        seed = runner.seed if self.seed is None else self.seed
        device = next(model.parameters()).device
        self.filter = build_filter(
            classes, device=device, seed=seed or 0, **copy.deepcopy(self.settings)
        )
        if self._state is not None:
            self.filter.load_state_dict(self._state)
            self._told_fits = self.filter.fits
        if not is_better_than_chance(self.filter.scorer):
            runner.logger.warning(
                'CLIP takes itself out of the filter, since it is no better than chance on the '
                'held-out crops: pseudo-boxes are judged without it.'
            )

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Sets the mode of the stage."""
        mode = self._mode_of(runner.train_loop.stage.name)
        active = self.filter is not None and mode != 'off'
        if active:
            self.filter.mode = mode
            self.filter.seconds = 0.0
        dsym_model(runner).set_pseudo_label_scorer(self.filter if active else None)
        self._began = time.perf_counter()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Logs."""
        if dsym_model(runner).scorer is None:
            return
        if self.filter.fits != self._told_fits:
            self._tell_fit(runner)
        else:
            self._iteration_seconds += time.perf_counter() - self._began
            self._filter_seconds += self.filter.seconds
        if not dsym_model(runner).stage.uses_teacher:
            return
        if self.every_n_train_iters(runner, self.interval):
            self._tell_counts(runner)
        if self.sheet_interval and self.every_n_train_iters(runner, self.sheet_interval):
            self._draw(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adds the state of the filter."""
        if self.filter is not None:
            checkpoint[CLIP_FILTER_STATE] = self.filter.state_dict()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remembers the state, for a run that is resumed; another one starts anew."""
        if runner._resume:  # the runner tells nobody else
            self._state = checkpoint.get(CLIP_FILTER_STATE)

    @property
    def share_of_time(self) -> float:
        """The filter's share of the time since the last line of the log, in [0, 1]."""
        return self._filter_seconds / max(1e-9, self._iteration_seconds)

    def _mode_of(self, stage: str) -> str:
        return self.schedule.get(stage, self.mode)

    def _tell_fit(self, runner: Runner) -> None:
        self._told_fits = self.filter.fits
        for line in self.filter.report_lines():
            runner.logger.info(line)
        if self.filter.crops.evidence is not None and not self.filter.crops.counts:
            runner.logger.warning(
                'CLIP takes itself out until the next calibration, since nothing that it says '
                'makes pseudo-labels better on the calibration images.'
            )

    def _tell_counts(self, runner: Runner) -> None:
        total = FilterCounts(self.filter.num_classes)
        parts = all_gather_object((self.filter.tally, self.filter.embedder.memory.take_counts()))
        self.filter.tally = FilterCounts(self.filter.num_classes)
        for counts, _ in parts:
            total.add(counts)
        asked, reused = (sum(part[1][i] for part in parts) for i in (0, 1))
        classes = runner.train_dataloader.dataset.metainfo['classes']
        share = reused / max(1, asked)
        cost = self.share_of_time
        self._filter_seconds = self._iteration_seconds = 0.0
        runner.logger.info(
            f'{total.line(classes)}; {asked} embeddings, {share:.0%} of them remembered; the '
            f'filter took {cost:.1%} of the time.'
        )
        scalars = total.scalars(classes)
        scalars |= {'clip_filter/remembered_share': share, 'clip_filter/share_of_time': cost}
        runner.visualizer.add_scalars(scalars, step=runner.iter + 1)

    def _draw(self, runner: Runner) -> None:
        classes = runner.train_dataloader.dataset.metainfo['classes']
        sheet = draw_filter_sheet(
            tuple(self.filter.kept_examples),
            tuple(self.filter.dropped_examples),
            classes,
            self.filter.embedder.read,
        )
        if sheet is not None:
            runner.visualizer.add_image('clip_filter', sheet, step=runner.iter + 1)
