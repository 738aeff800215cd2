"""Single iterations of a real training, on batches that come from outside."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

from mmengine.config import Config
from mmengine.model import is_model_wrapper
from torch import nn

from mmdsym.command_line import build_runner
from mmdsym.config import walk


class TrainingIterations:
    """A run that is set up as ``Runner.train`` does it, and then waits for batches.

    All its hooks take part (the teacher's update, calibration, the filter), but for those that
    write or validate: nothing stays on disk.

    Args:
        cfg: A whole training config; not changed.
        name: Tells its runner from others in the same process.
        checkpoint: To start from; without one the weights are random.
    """

    def __init__(self, cfg: Config, name: str, checkpoint: Path | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.runner = build_runner(_without_traces(cfg, name, self._folder.name, checkpoint))
        self._loop = self.runner.train_loop
        # The set-up stands in `train`; it ends where the loop would start.
        self._loop.run = self._begin
        self.runner.train()

    def _begin(self) -> None:
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')

    @property
    def model(self) -> nn.Module:
        """The model under training."""
        model = self.runner.model
        return model.module if is_model_wrapper(model) else model

    def go_to(self, iteration: int) -> None:
        """Makes the next batch count as that of the given iteration."""
        # Resuming sets it by this name.
        self._loop._iter = iteration

    def step(self, batch: dict) -> None:
        """Trains on one batch, as the loop does it.

        Args:
            batch: Collated samples; they may be changed.
        """
        self.runner.model.train()
        iteration = self._loop.iter
        self.runner.call_hook('before_train_iter', batch_idx=iteration, data_batch=batch)
        outputs = self.runner.model.train_step(batch, optim_wrapper=self.runner.optim_wrapper)
        self.runner.call_hook(
            'after_train_iter', batch_idx=iteration, data_batch=batch, outputs=outputs
        )
        self.go_to(iteration + 1)


def _without_traces(cfg: Config, name: str, folder: str, checkpoint: Path | None) -> Config:
    cfg = copy.deepcopy(cfg)
    cfg.work_dir = folder
    cfg.experiment_name = f'{name}_{Path(folder).name}'
    cfg.visualizer = dict(type='Visualizer', name=cfg.experiment_name)
    cfg.default_hooks.update(checkpoint=None, logger=None)
    cfg.default_hooks.pop('visualization', None)
    for loop in ('val', 'test'):
        for part in ('cfg', 'dataloader', 'evaluator'):
            cfg[f'{loop}_{part}'] = None
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.load_from, cfg.resume = checkpoint and str(checkpoint), False
    # The config that a run of several processes left still names theirs.
    cfg.launcher = 'none'
    cfg.log_level = 'WARNING'
    for entry in walk(cfg.model):
        if entry.get('pretrained'):
            entry.pretrained = None
        if (entry.get('init_cfg') or {}).get('type') == 'Pretrained':
            entry.init_cfg = None
    return cfg
