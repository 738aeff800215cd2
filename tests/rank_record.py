"""A hook that writes down what its process did, for tests with several processes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook

from mmdsym.engine.hooks.stage_hook import dsym_model
from mmdsym.registry import HOOKS

SOURCES = {'sup': 'labelled', 'synthetic': 'synthetic', 'unsup_teacher': 'unlabelled'}


def digest(module: torch.nn.Module) -> str:
    """Names and values of all parameters and buffers, in one short string."""
    content = hashlib.sha256()
    for name, value in module.state_dict().items():
        content.update(name.encode())
        content.update(value.contiguous().numpy().tobytes())
    return content.hexdigest()[:16]


@HOOKS.register_module()
class RankRecord(Hook):
    """After each iteration: images, thresholds, both networks, and calibrations of the filter."""

    priority = 'LOWEST'

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.lines = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        model = dsym_model(runner)
        served = {
            source: [
                sample.img_path
                for sample in data_batch['data_samples'][branch]
                if sample is not None
            ]
            for branch, source in SOURCES.items()
        }
        self.lines.append(
            dict(
                iteration=batch_idx,
                stage=model.stage.name,
                served=served,
                thresholds=model.keep_thresholds.tolist() + model.drop_thresholds.tolist(),
                teacher=digest(model.teacher),
                student=digest(model.student),
                kept=int(model.statistics.kept.sum()),
                fits=0 if model.scorer is None else model.scorer.fits,
                unsupervised=[name for name in outputs if name.startswith('unsup_')],
            )
        )

    def after_train(self, runner) -> None:
        text = json.dumps(self.lines)
        (self.folder / f'rank{get_rank()}.json').write_text(text)
