"""The diffusion model for parts in colour takes a step, and a whole run can name it."""

from __future__ import annotations

import shutil

import numpy as np
import torch
from conftest import REPOSITORY
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.optim import OptimWrapper
from mmengine.registry import DATASETS, MODELS, DefaultScope
from PIL import Image
from whole_run_data import write_configs

from mmdsym.config import complete_config
from mmdsym.pipeline.parts import declared_parts


def test_it_takes_a_step_on_images_in_colour(tiny_data, tmp_path):
    data = tmp_path / 'data'
    shutil.copytree(tiny_data, data)
    for path in (data / 'images').iterdir():
        grey = np.asarray(Image.open(path).convert('L'))
        Image.fromarray(np.stack([grey, grey // 2, 255 - grey], axis=2)).save(path)
    cfg = Config.fromfile(REPOSITORY / 'configs/diffusion/defect_inpaint_colour.py')
    cfg.merge_from_dict(dict(data_root=f'{data}/', split='40pct_seed0'))
    cfg = complete_config(cfg)
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        batch = default_collate([dataset[index] for index in range(2)])
        model = MODELS.build(cfg.model)
        held_out = DATASETS.build(cfg.val_dataloader.dataset)[0]
    assert batch['image'].shape == (2, 3, 160, 160) and held_out['image'].shape[0] == 3
    red, _, blue = batch['image'].float().mean(dim=(0, 2, 3))
    assert not torch.isclose(red, blue, atol=1.0), 'colours are not lost on the way'
    before = model.denoiser.unet.conv_in.weight.clone()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = model.train_step(batch, OptimWrapper(optimizer))
    assert torch.isfinite(losses['loss'])
    assert not torch.equal(model.denoiser.unet.conv_in.weight, before)


def test_a_whole_run_can_name_it_as_its_part(tiny_data, tmp_path):
    cfg = Config.fromfile(write_configs(tmp_path, tiny_data))
    cfg.parts.diffusion.config = 'diffusion/defect_inpaint_colour.py'
    cfg.work_dir = str(tmp_path / 'run')
    part = declared_parts(complete_config(cfg))[0]
    assert part.config.model.denoiser.channels == 3
    assert part.config.train_dataloader.dataset.pipeline[-1].channels == 3
    assert part.config.train_dataloader.dataset.ann_file.startswith(str(tmp_path))
