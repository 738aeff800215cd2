"""The baselines that DSYM is measured against really train."""

import pytest
from mmengine.registry import RUNNERS, DefaultScope

from mmdsym.config import walk


@pytest.mark.parametrize('name', ['supervised_neu_40pct', 'soft_teacher_neu_40pct'])
def test_a_baseline_trains_and_is_evaluated(name, tiny_config, tmp_path):
    cfg = tiny_config(f'baselines/{name}.py')
    cfg.work_dir = str(tmp_path)
    for entry in walk(cfg.model):
        if entry.get('type') == 'ResNet':
            entry.init_cfg = None
        if entry.get('pretrained'):
            entry.pretrained = None
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False, batch_size=4)
    if 'batch_size' in cfg.train_dataloader.sampler:
        cfg.train_dataloader.sampler.batch_size = 4
    cfg.val_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.param_scheduler = None
    cfg.visualizer = dict(type='Visualizer', name=f'baseline_{name}')
    cfg.experiment_name = f'baseline_{name}_{tmp_path.name}'
    runner = RUNNERS.build(cfg)
    runner.train()
    DefaultScope._instance_dict.clear()
    metrics = [key for key in runner.message_hub.log_scalars if key.endswith('bbox_mAP_50')]
    assert len(metrics) == (2 if name.startswith('soft') else 1)
