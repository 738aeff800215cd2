"""Batches of a staged training, for whoever wants to train on the very same images."""

from __future__ import annotations

from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, init_default_scope

from mmdsym.config import complete_config
from mmdsym.datasets import StagedSampler
from mmdsym.errors import UserError
from mmdsym.stages import Stage, StageSchedule


def joint_stage(cfg: Config) -> Stage:
    """Returns the first stage of a config that uses unlabelled images.

    Raises:
        UserError: It has none.
    """
    stages = (cfg.get('train_cfg') or {}).get('stages')
    for stage in StageSchedule(stages).stages if stages else ():
        if stage.uses_teacher:
            return stage
    raise UserError(
        f'no stage of {cfg.filename} uses unlabelled images: name a DSYM config, such as '
        'configs/benchmark/atss_lite0/dsym.py.'
    )


def draw_batches(cfg: Config, first: int, count: int) -> list[dict]:
    """Loads the batches that some iterations of a staged training would get.

    Args:
        cfg: A DSYM training config; not changed.
        first: Iteration of the first batch.
        count: How many.

    Returns:
        For each iteration ``inputs`` and ``data_samples``: branch to a list with an entry per
        sample, ``None`` where the sample has no such branch.
    """
    cfg = complete_config(cfg)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    sampler = StagedSampler(dataset, seed=0)
    sampler.follow(StageSchedule(cfg.train_cfg.stages))
    return [
        pseudo_collate([dataset[request] for request in sampler.batch(iteration)])
        for iteration in range(first, first + count)
    ]


def as_mmdetection_batch(batch: dict) -> dict:
    """Returns the same images as MMDetection's teacher-student detectors take them.

    Synthetic images count as labelled ones, since these detectors know no third kind.
    """
    converted = {}
    for key, branches in batch.items():
        present = {
            branch: [entry for entry in entries if entry is not None]
            for branch, entries in branches.items()
        }
        present['sup'] = present['sup'] + present.pop('synthetic', [])
        converted[key] = present
    return converted
