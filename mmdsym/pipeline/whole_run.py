"""One command from data to report: makes what is missing, reuses what is there."""

from __future__ import annotations

import gc
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import get_rank

from mmdsym.command_line import train
from mmdsym.config import complete_config
from mmdsym.diffusion.first_rank import from_first_rank
from mmdsym.engine.processes import start_processes
from mmdsym.errors import UserError

from .after_training import Finishing, parse_after_training
from .baseline import add_compared_test, baseline_config, compared_network, difference
from .early_checks import check_before_parts
from .own_config import renew_evaluation
from .part_making import PartState, make_part, state_of
from .parts import Part, declared_parts
from .plan import Step, as_table, make_plan
from .progress import iteration_of, iterations_done, latest_checkpoint
from .starts import has_gone_on_from, note_start, validation_of
from .steps import Steps
from .work_folder import changed_since, claimed, in_short, open_record, refuse_unknown


class WholeRun:
    """All steps of a config, each done once.

    Interrupted anywhere and started again, it goes on where it was: parts are keyed by what
    determines them, trainings resume from their latest checkpoint, later steps are noted in the
    work folder.

    Args:
        cfg: The config with its work folder, not yet completed.
        resume: ``None``; ``'auto'`` to go on in a work folder although its settings differ; or the
            checkpoint to go on from.
        with_baseline: Whether to train a supervised run of equal length too, and to say which of
            both is better.
        steps: Of the run that this one is a part of.

    Raises:
        UserError: Something in the config or the data is wrong, or the work folder holds the
            checkpoints of another run.
    """

    def __init__(
        self,
        cfg: Config,
        resume: str | None = None,
        with_baseline: bool = False,
        steps: Steps | None = None,
    ) -> None:
        if resume is None:
            # Before all else, since it needs no data.
            refuse_unknown(Path(cfg.work_dir))
        self.cfg = complete_config(cfg)
        self.resume = resume
        self.work_dir = Path(self.cfg.work_dir)
        self.steps = steps or Steps()
        self.baseline = self._prepare_baseline() if with_baseline else None
        self.wanted = parse_after_training(self.cfg)
        self.parts = declared_parts(self.cfg)
        self.record, self._changed = open_record(self.cfg, insists=resume is not None)
        self.steps.expect(len(self.parts) + 1 + len(self.wanted.steps))

    def plan(self) -> str:
        """Returns the steps with their states and durations as a table; writes nothing."""
        return as_table(self._planned())

    def execute(self) -> None:
        """Does all steps; every rank of a distributed training must call it.

        Raises:
            UserError: A step failed for a reason that the user can remove.
        """
        settings = (self.cfg.get('env_cfg') or {}).get('dist_cfg')
        start_processes(self.cfg.get('launcher', 'none'), settings)
        self._tell_end(self._execute())

    def _prepare_baseline(self) -> WholeRun:
        baseline = baseline_config(self.cfg)
        add_compared_test(self.cfg)
        resume = None if self.resume is None else 'auto'
        return WholeRun(baseline, resume, steps=self.steps.of('baseline'))

    def _planned(self) -> list[Step]:
        further = self.baseline._planned() if self.baseline else []
        named = [replace(step, name=f'baseline: {step.name}') for step in further]
        return make_plan(self.cfg, self.record, named)

    def _execute(self) -> Finishing:
        # One process speaks for all ranks.
        with claimed(self.work_dir) if get_rank() == 0 else nullcontext():
            if self._changed:
                self._tell(f'goes on although these settings differ: {in_short(self._changed)}')
            if self.parts:
                check_before_parts(self.cfg)
            for part in self.parts:
                self._make(part)
            self._train()
            if self.baseline is not None:
                self.baseline._execute()
            finishing = Finishing(self.cfg, self.record)
            for step in self.wanted.steps:
                self._finish(finishing, step)
            return finishing

    def _make(self, part: Part) -> None:
        self.steps.begin()
        state = from_first_rank(lambda: state_of(part))
        if state.there:
            self._tell(f'{part.title}: found in {part.folder}')
            return
        self._tell(f'{part.title}: {_intention(part, state)}')
        from_first_rank(lambda: make_part(part))

    def _train(self) -> None:
        self.steps.begin()
        total, done = _length(self.cfg), iterations_done(self.work_dir)
        asked_for = self.resume not in (None, 'auto')
        # Started again after an interruption, the same command does not begin there once more.
        if asked_for:
            named = Path(self.resume)
            asked_for = not from_first_rank(lambda: has_gone_on_from(self.work_dir, named))
        if total is not None and done >= total and not asked_for:
            self._tell(f'training: found, {done} iterations, {latest_checkpoint(self.work_dir)}')
            from_first_rank(lambda: renew_evaluation(self.cfg, self.work_dir))
            return
        checkpoint = self.resume if asked_for else latest_checkpoint(self.work_dir)
        if asked_for:
            done = iteration_of(Path(checkpoint))
        described = self.cfg.copy()
        from_first_rank(lambda: self._begin_training(described, done, asked_for))
        if checkpoint is None:
            self._tell(f'training: begins in {self.work_dir}')
        else:
            self._tell(f'training: goes on from {checkpoint}')
        train(self.cfg, checkpoint is not None, checkpoint and str(checkpoint))
        self._tell_changes(described)
        # The networks and workers of the training are of no more use.
        gc.collect()

    def _begin_training(self, described: Config, iteration: int, asked_for: bool) -> None:
        # What was said of it when the command started may be hours old.
        changed = changed_since(described, self.record)
        if changed:
            raise UserError(
                f'settings or data changed since the command started ({in_short(changed)}): start '
                'it again, which takes them as they are now.'
            )
        self.record.write(self.work_dir)
        named = self.resume if asked_for else None
        note_start(self.work_dir, iteration, named, validation_of(self.cfg))

    def _tell_changes(self, described: Config) -> None:
        changed = changed_since(described, self.record) if get_rank() == 0 else []
        if changed:
            self._tell(
                f'training: data changed while it ran ({in_short(changed)}), so that it may have '
                'seen both; train anew in another --work-dir if that matters'
            )

    def _finish(self, finishing: Finishing, step: str) -> None:
        self.steps.begin()
        if finishing.is_done(step):
            self._tell(f'{step}: found in {finishing.where(step)}')
            return
        self._tell(f'{step}: begins')
        for line in finishing.do(step):
            self._tell(f'{step}: {line}')

    def _tell_end(self, finishing: Finishing) -> None:
        if self.baseline is not None:
            self._tell(difference(self.work_dir, compared_network(self.cfg)))
        where = [f'checkpoint {latest_checkpoint(self.work_dir)}']
        where += [
            f'{step} {finishing.where(step)}'
            for step in self.wanted.steps
            if finishing.is_done(step)
        ]
        self._tell(f'everything is done; {"; ".join(where)}')

    def _tell(self, line: str) -> None:
        self.steps.tell(line)


def _intention(part: Part, state: PartState) -> str:
    if state.faults:
        return f'{part.folder} is damaged ({state.faults[0]}), so that it is made anew'
    if state.iteration:
        return f'training goes on at iteration {state.iteration} of {part.max_iters}'
    return f'is trained, {part.max_iters} iterations, into {part.folder}'


def _length(cfg: Config) -> int | None:
    stages = (cfg.get('train_cfg') or {}).get('stages')
    if stages:
        return max(stage['end'] for stage in stages.values())
    return (cfg.get('train_cfg') or {}).get('max_iters')
