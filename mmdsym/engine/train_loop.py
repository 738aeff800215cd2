"""The training loop: iterations, in stages, with an exact resume."""

from __future__ import annotations

from collections.abc import Mapping

from mmengine.runner import BaseLoop, Runner
from torch.utils.data import DataLoader

from mmdsym.datasets import StagedSampler
from mmdsym.errors import UserError
from mmdsym.registry import LOOPS
from mmdsym.stages import Stage, StageSchedule


@LOOPS.register_module()
class StagedTrainLoop(BaseLoop):
    """Trains from the first iteration of the first stage to the last of the last.

    There are no epochs that could end a run early: its length is where the last stage ends, and
    that is what the time left is computed from. The last iteration of each stage is followed by
    a validation, whatever the interval. A resumed run asks the sampler for the next batch
    instead of loading and discarding all that came before.

    Args:
        runner: The runner.
        dataloader: The training data or their config, with ``mmdsym.StagedSampler``.
        stages: See :class:`mmdsym.stages.StageSchedule`.
        val_interval: Iterations between two validations.
        val_begin: First iteration at which to validate.

    Raises:
        UserError: A stage is wrong, or asks for a source that has no images.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        stages: Mapping[str, Mapping],
        val_interval: int = 1000,
        val_begin: int = 1,
    ) -> None:
        self.schedule = StageSchedule(stages)
        super().__init__(runner, dataloader)
        sampler = self.dataloader.batch_sampler.sampler
        if not isinstance(sampler, StagedSampler):
            raise UserError(
                'mmdsym.StagedTrainLoop needs sampler=dict(type="mmdsym.StagedSampler") and '
                'batch_sampler=dict(type="mmdsym.StagedBatchSampler") in train_dataloader.'
            )
        sampler.follow(self.schedule)
        self.sampler = sampler
        self.val_interval = val_interval
        self.val_begin = val_begin
        # EarlyStoppingHook sets this one.
        self.stop_training = False
        # Resuming sets these two, by these names.
        self._iter = 0
        self._epoch = 0
        runner.visualizer.dataset_meta = self.dataloader.dataset.metainfo

    @property
    def stage(self) -> Stage:
        """The stage of the present iteration."""
        return self.schedule.at(self._iter)

    @property
    def max_epochs(self) -> int:
        """1: the whole run counts as one epoch, as in MMEngine's loop over iterations."""
        return 1

    @property
    def max_iters(self) -> int:
        """Iterations of all stages together."""
        return self.schedule.max_iters

    @property
    def epoch(self) -> int:
        """Always 0, see :attr:`max_epochs`."""
        return self._epoch

    @property
    def iter(self) -> int:
        """Iterations done so far."""
        return self._iter

    def run(self) -> None:
        """Trains until the last stage ends."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self.sampler.follow(self.schedule, first_iteration=self._iter)
        batches = iter(self.dataloader)
        while self._iter < self.max_iters and not self.stop_training:
            self.runner.model.train()
            self._run_iteration(next(batches))
            if self._validation_due():
                self.runner.val_loop.run()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')

    def _run_iteration(self, batch: dict) -> None:
        self.runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=batch)
        outputs = self.runner.model.train_step(batch, optim_wrapper=self.runner.optim_wrapper)
        self.runner.call_hook(
            'after_train_iter', batch_idx=self._iter, data_batch=batch, outputs=outputs
        )
        self._iter += 1

    def _validation_due(self) -> bool:
        if self.runner.val_loop is None or self._iter < self.val_begin:
            return False
        stage_ends = any(self._iter == stage.end for stage in self.schedule.stages)
        return stage_ends or self._iter % self.val_interval == 0
