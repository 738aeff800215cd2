"""The baselines that DSYM is measured against really train."""

import pytest
from mmengine.registry import RUNNERS, DefaultScope

from mmdsym.config import walk

CONFIGS = [
    'baselines/supervised_neu_40pct',
    'baselines/soft_teacher_neu_40pct',
    'benchmark/atss_lite0/soft_teacher_dense',
    'benchmark/faster_rcnn_lite0/soft_teacher',
    'benchmark/faster_rcnn_lite0/supervised',
]


@pytest.mark.parametrize('path', CONFIGS)
def test_a_baseline_trains_and_is_evaluated(path, tiny_config, tmp_path):
    cfg = tiny_config(f'{path}.py')
    name = path.replace('/', '_')
    cfg.work_dir = str(tmp_path)
    for entry in walk(cfg.model):
        if entry.get('type') == 'ResNet':
            entry.init_cfg = None
        if entry.get('pretrained'):
            entry.pretrained = None
        if 'score_thr' in entry:
            # MMDetection reports nothing about a network that finds nothing.
            entry.score_thr = 0.0
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
    assert len(metrics) == (2 if 'soft' in name else 1)
