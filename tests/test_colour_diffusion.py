"""The diffusion model for parts in colour takes a step, and a whole run can name it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.optim import OptimWrapper
from mmengine.registry import DATASETS, MODELS, DefaultScope
from PIL import Image
from whole_run_data import write_configs

from mmdsym.config import complete_config
from mmdsym.diffusion import DiffusionSynthesiser
from mmdsym.diffusion.inpainting_model import DefectInpaintingDiffusion
from mmdsym.diffusion.labelled_images import LabelledImages, read_labelled_images
from mmdsym.diffusion.layout_config import LayoutConfig
from mmdsym.diffusion.synthesis import Synthesis
from mmdsym.diffusion.weights import DiffusionDescription, save_diffusion
from mmdsym.errors import UserError
from mmdsym.pipeline.parts import declared_parts


def paint_over(path: Path) -> None:
    grey = np.asarray(Image.open(path).convert('L'))
    Image.fromarray(np.stack([grey, grey // 2, 255 - grey], axis=2)).save(path)


@pytest.fixture
def colour_data(tiny_data, tmp_path) -> Path:
    data = tmp_path / 'data'
    shutil.copytree(tiny_data, data)
    for path in (data / 'images').iterdir():
        paint_over(path)
    return data


def labelled_images(data: Path) -> LabelledImages:
    config = dict(
        type='mmdsym.DefectDataset',
        ann_file=f'{data}/annotations/40pct_seed0/burn_in.json',
        data_prefix=dict(img=f'{data}/images/'),
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        return read_labelled_images(config)


def synthesiser(folder: Path, channels: int) -> DiffusionSynthesiser:
    torch.manual_seed(0)
    unet = dict(
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=('DownBlock2D', 'DownBlock2D'),
        up_block_types=('UpBlock2D', 'UpBlock2D'),
        norm_num_groups=4,
    )
    model = DefectInpaintingDiffusion(
        num_classes=2,
        denoiser=dict(crop_size=16, channels=channels, patch_size=4, unet=unet),
        noise_schedule=dict(sigma_min=0.01, sigma_max=10.0, sigma_data=0.4),
        noise_levels=dict(mean=-1.0, std=1.2),
    )
    about = DiffusionDescription(('dent', 'spot'), channels, 16, 4, 16, (1.2, 2.5))
    save_diffusion(folder, model.denoiser.unet, model.scheduler, about)
    return DiffusionSynthesiser(str(folder), num_steps=2)


def test_it_takes_a_step_on_images_in_colour(colour_data):
    data = colour_data
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


def test_a_grey_model_does_not_learn_from_colour(colour_data):
    cfg = Config.fromfile(REPOSITORY / 'configs/diffusion/defect_inpaint_neu_40pct.py')
    cfg.merge_from_dict(dict(data_root=f'{colour_data}/', split='40pct_seed0'))
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(complete_config(cfg).train_dataloader.dataset)
        with pytest.raises(UserError, match=r'grey .*000.png is in colour.*defect_inpaint_colour'):
            dataset[0]


def test_a_grey_model_does_not_paint_into_a_single_image_in_colour(tiny_data, tmp_path):
    data = tmp_path / 'data'
    shutil.copytree(tiny_data, data)
    paint_over(data / 'images/003.png')
    grey = synthesiser(tmp_path / 'grey', 1)
    synthesis = Synthesis(labelled_images(data), grey, LayoutConfig(), count=2)
    with pytest.raises(UserError, match=r'003.png is in colour, which would be lost: train'):
        synthesis.make_or_find(tmp_path / 'cache')
    assert not list((tmp_path / 'cache').rglob('*.png'))


def test_a_model_for_colour_does_not_paint_into_grey_images(tiny_data, tmp_path):
    colour = synthesiser(tmp_path / 'colour', 3)
    synthesis = Synthesis(labelled_images(tiny_data), colour, LayoutConfig(), count=2)
    with pytest.raises(UserError, match='paints in colour .* all 4 images are grey: train a grey'):
        synthesis.make_or_find(tmp_path / 'cache')


def test_a_grey_image_among_colour_stays_grey(colour_data, tiny_data, tmp_path):
    shutil.copy(tiny_data / 'images/000.png', colour_data / 'images/000.png')
    colour = synthesiser(tmp_path / 'colour', 3)
    synthesis = Synthesis(labelled_images(colour_data), colour, LayoutConfig(), count=8)
    report = synthesis.make_or_find(tmp_path / 'cache')
    content = json.loads(report.annotation_file.read_text())
    modes = {}
    for entry in content['images']:
        with Image.open(report.image_folder / entry['file_name']) as image:
            modes.setdefault(entry['source'] == '000.png', set()).add(image.mode)
    assert modes == {True: {'L'}, False: {'RGB'}}
