"""Configs of a whole run that is over in seconds: tiny models, few iterations, all parts."""

from __future__ import annotations

import shutil
from pathlib import Path

from clip_data import TINY_CLIP
from conftest import REPOSITORY

LEAF = """
_base_ = '{configs}/dsym_neu_40pct.py'
data_root = '{data}/'
image_size = (64, 64)
randomness = dict(seed=0)
parts = dict(
    diffusion=dict(config='tiny_diffusion.py'),
    clip=dict(config='tiny_clip.py'),
)
model = dict(
    detector=dict(
        backbone=dict(pretrained=None),
        test_cfg=dict(score_thr=0.0, max_per_img=5),
    )
)
images = dict(labelled=1, synthetic=1)
train_cfg = dict(
    val_interval=100,
    stages=dict(
        burn_in=dict(end=2, images=images),
        joint=dict(
            begin=2,
            end=6,
            images=dict(unlabelled=2, **images),
            # Every box of an untrained teacher is kept, so that the unsupervised loss is real.
            thresholds=dict(_delete_=True, keep=0.0, drop=0.0),
            loss_weights=dict(unlabelled=dict(iterations=2)),
        ),
        refine=dict(
            begin=6,
            end=8,
            images=dict(calibration=1, unlabelled=1, **images),
            loss_weights=dict(synthetic=dict(iterations=2)),
            thresholds=dict(target_precision=0.5),
        ),
    ),
)
param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end='joint')]
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        sources=dict(
            synthetic=dict(
                count=3,
                synthesiser=dict(num_steps=2),
                layout=dict(defects_per_image=(1, 1)),
                max_attempts=1,
            )
        )
    ),
)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)
adapted_filter = _base_.adapted_filter
adapted_filter.mode = 'soft'
adapted_filter.scorer.prototypes.cache_dir = '{data}/features'
# So that a fit on the boxes of an untrained teacher counts.
adapted_filter.fusion = dict(min_right=1, min_wrong=1, min_gain=-1.0)
custom_hooks = [adapted_filter, *_base_.custom_hooks[1:]]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=3))
visualizer = dict(_delete_=True, type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
"""

DIFFUSION = """
_base_ = '{configs}/diffusion/defect_inpaint_neu_40pct.py'
region = dict(_base_.region, crop_size=32)
model = dict(
    denoiser=dict(
        crop_size=32,
        patch_size=4,
        unet=dict(
            _delete_=True,
            block_out_channels=(16, 32),
            layers_per_block=1,
            down_block_types=('DownBlock2D', 'AttnDownBlock2D'),
            up_block_types=('AttnUpBlock2D', 'UpBlock2D'),
            attention_head_dim=16,
            norm_num_groups=8,
        ),
    ),
)
train_dataloader = dict(
    batch_size=2, dataset=dict(pipeline=[*_base_.load, *_base_.orientation, region])
)
val_dataloader = None
val_evaluator = None
val_cfg = None
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters={iterations})
param_scheduler = []
custom_hooks = [_base_.custom_hooks[0], _base_.custom_hooks[-1]]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
visualizer = dict(_delete_=True, type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
"""

CLIP = """
_base_ = '{configs}/clip/adapt_clip_neu_40pct.py'
model = dict(model=dict(_delete_=True, **{clip}), image_pretrained=None, trained_groups=2)
train_dataloader = dict(batch_size=6, dataset=dict(size=32))
val_dataloader = None
val_evaluator = None
val_cfg = None
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=3)
param_scheduler = []
visualizer = dict(_delete_=True, type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
"""


def write_configs(folder: Path, tiny_data: Path, diffusion_iterations: int = 4) -> Path:
    """Writes the configs beside a copy of the tiny data, and returns the one to train."""
    data = folder / 'data'
    shutil.copytree(tiny_data, data)
    values = dict(
        configs=REPOSITORY / 'configs', data=data, iterations=diffusion_iterations, clip=TINY_CLIP
    )
    for name, text in (('tiny', LEAF), ('tiny_diffusion', DIFFUSION), ('tiny_clip', CLIP)):
        for key, value in values.items():
            text = text.replace(f'{{{key}}}', str(value))
        (folder / f'{name}.py').write_text(text.lstrip())
    return folder / 'tiny.py'
