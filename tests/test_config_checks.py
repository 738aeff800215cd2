"""What a user writes into a config is checked before anything is made of it."""

import json

import pytest
from mmengine.config import Config

from mmdsym.config import complete_config
from mmdsym.config_checks import (
    check_options,
    check_prompts,
    require_images,
    square_image_size,
)
from mmdsym.errors import UserError
from mmdsym.registry import TRANSFORMS

KNOWN = Config(dict(split='40pct_seed0', data_root='data/', train_cfg=dict(), custom_hooks=[]))


@pytest.mark.parametrize(
    ('option', 'meant'),
    [
        ('spilt', 'split'),
        ('iteration', 'iterations'),
        ('image_per_step', 'images_per_step'),
        ('dataroot', 'data_root'),
        ('train_cfgs.stages.joint.end', 'train_cfg'),
    ],
)
def test_a_misspelt_option_is_named(option, meant):
    with pytest.raises(UserError, match=f"sets '{option.split('.')[0]}'.*'{meant}'"):
        check_options([option], KNOWN)


@pytest.mark.parametrize(
    'option', ['split', 'iterations', 'train_cfg.val_interval', 'test_cfg', 'my_own_number']
)
def test_other_options_pass(option):
    check_options([option], KNOWN)


@pytest.mark.parametrize(
    ('size', 'sides'), [(64, (64, 64)), ([64, 32], (64, 32)), ((64, 32), (64, 32))]
)
def test_one_number_is_a_square(size, sides):
    cfg = Config(dict(image_size=size))
    square_image_size(cfg)
    assert cfg.image_size == sides


@pytest.mark.parametrize('size', [(64,), 0, (64, -1), '64', (64.5, 64), (1, 2, 3), True])
def test_other_sizes_are_refused(size):
    with pytest.raises(UserError, match='image_size is .*such as'):
        square_image_size(Config(dict(image_size=size)))


def test_a_square_reaches_the_pipelines(tiny_config):
    cfg = tiny_config('baselines/supervised_neu_40pct.py', image_size=96)
    sizes = {
        tuple(step['scale'])
        for step in complete_config(cfg).val_dataloader.dataset.pipeline
        if 'scale' in step
    }
    assert sizes == {(96, 96)}


@pytest.mark.parametrize(('image_size', 'turns'), [((96, 96), True), ((128, 64), False)])
def test_quarter_turns_are_for_squares(tiny_config, image_size, turns):
    cfg = tiny_config('baselines/supervised_neu_40pct.py', image_size=image_size)
    pipeline = complete_config(cfg).train_dataloader.dataset.pipeline
    (step,) = (step for step in pipeline if step['type'] == 'mmdsym.RandomTranspose')
    assert bool(TRANSFORMS.build(step).prob) == turns


@pytest.mark.parametrize(
    ('prompts', 'message'),
    [
        (dict(dent='a dent', sopt='a spot'), "name 'sopt'.*did you mean 'spot'"),
        ([['dent', 'a dent'], ['crack', 'a crack']], "name 'crack'.*they are dent, spot"),
        (dict(dent='a dent'), 'say nothing of spot'),
        (dict(dent='a dent', spot=[]), 'say nothing of spot'),
    ],
)
def test_prompts_of_other_classes_are_named(prompts, message):
    with pytest.raises(UserError, match=message):
        check_prompts(Config(dict(prompts=prompts)), ('dent', 'spot'))


def test_no_prompts_and_prompts_of_all_classes_pass():
    for prompts in (None, {}, dict(dent='a dent', spot=['a spot'])):
        check_prompts(Config(dict(prompts=prompts)), ('dent', 'spot'))


def test_a_split_without_calibration_images_is_refused(tmp_path):
    (tmp_path / 'calibration.json').write_text(json.dumps(dict(images=[])))
    sources = dict(calibration=dict(ann_file='calibration.json', data_root=str(tmp_path)))
    cfg = Config(
        dict(
            train_dataloader=dict(dataset=dict(sources=sources)),
            train_cfg=dict(stages=dict(refine=dict(images=dict(labelled=1, calibration=0)))),
        )
    )
    require_images(cfg)
    cfg.train_cfg.stages.refine.images.calibration = 1
    with pytest.raises(UserError, match='calibration images, but .* has none: label more'):
        require_images(cfg)
    (tmp_path / 'calibration.json').write_text(json.dumps(dict(images=[dict(id=0)])))
    require_images(cfg)
