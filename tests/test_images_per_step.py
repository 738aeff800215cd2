"""One number decides batches, learning rate and lengths, by the rules that the guide states."""

import pytest
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config

from mmdsym.config import complete_config
from mmdsym.errors import UserError
from mmdsym.images_per_step import (
    follow_images_per_step,
    images_per_device,
    learning_rate_factor,
    processes_of,
    scale_stages,
    share_images,
)

STAGED = 'baselines/teacher_student_neu_40pct.py'
PLAIN = 'baselines/supervised_neu_40pct.py'
SOFT_TEACHER = 'benchmark/atss_lite0/soft_teacher_dense.py'
PRESETS = ['stages_cpu.py', 'stages_gpu.py', 'iterations_cpu.py', 'iterations_gpu.py']


def load(name: str, **options) -> Config:
    cfg = Config.fromfile(REPOSITORY / 'configs' / name)
    cfg.merge_from_dict(options)
    return cfg


def followed(name: str, wanted: int, processes: int = 1, **options) -> Config:
    cfg = load(name, images_per_step=wanted, **options)
    follow_images_per_step(cfg, processes)
    return cfg


def numbers(cfg: Config) -> dict:
    names = ('train_cfg', 'optim_wrapper', 'param_scheduler', 'custom_hooks', 'train_dataloader')
    return {name: cfg.to_dict().get(name) for name in names}


@pytest.mark.parametrize(
    ('name', 'wanted'),
    [
        (STAGED, 16),
        ('dsym_neu_40pct.py', 18),
        ('dsym_faster_rcnn_r50_neu_40pct.py', 18),
        (PLAIN, 8),
        (SOFT_TEACHER, 16),
    ],
)
def test_the_number_that_a_config_was_written_for_changes_nothing(name, wanted):
    assert numbers(followed(name, wanted)) == numbers(load(name))


def test_four_times_the_images_take_a_quarter_of_the_steps():
    cfg = followed(STAGED, 64)
    stages = cfg.train_cfg.stages
    assert [(s.begin, s.end) for s in stages.values()] == [(0, 175), (175, 375), (375, 450)]
    assert stages.burn_in.images == dict(labelled=32)
    assert stages.joint.images == dict(labelled=32, unlabelled=32)
    assert stages.refine.images == dict(labelled=28, calibration=4, unlabelled=32)
    assert stages.joint.loss_weights.unlabelled.iterations == 50
    assert cfg.train_cfg.val_interval == 150
    assert [entry.begin for entry in cfg.param_scheduler] == [0, 25]
    assert [entry.end for entry in cfg.param_scheduler] == [25, 'refine']
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(2e-3)
    decays = [hook.decay for hook in cfg.custom_hooks if 'decay' in hook]
    assert decays == [pytest.approx(0.998**4)]


def test_intervals_follow_with_the_lengths():
    before, cfg = load(STAGED), followed(STAGED, 64)
    kinds = {hook.type: hook for hook in cfg.custom_hooks}
    assert before.default_hooks.checkpoint.interval == 4 * cfg.default_hooks.checkpoint.interval
    assert cfg.default_hooks.checkpoint.interval == 50
    assert cfg.default_hooks.logger.interval == 12
    # Neither does the config say so itself.
    assert kinds['mmdsym.ThresholdCalibrationHook'].interval == 50
    assert kinds['mmdsym.PseudoLabelMonitorHook'].interval == 12
    # It counts images of the test set.
    assert 'interval' not in cfg.default_hooks.visualization
    unknown = followed(STAGED, 64, custom_hooks=[dict(type='mmdsym.NoSuchHook', interval=8)])
    assert unknown.custom_hooks[0].interval == 8
    fewer = followed(STAGED, 8, **{'default_hooks.checkpoint.by_epoch': True})
    assert fewer.default_hooks.checkpoint.interval == 200
    assert fewer.default_hooks.logger.interval == 100


def test_several_processes_share_a_step_and_see_as_many_images():
    one, four = followed(STAGED, 64), followed(STAGED, 64, processes=4)
    assert images_per_device(four) == 16
    assert four.train_cfg.stages.refine.images == load(STAGED).train_cfg.stages.refine.images
    for stage in ('burn_in', 'joint', 'refine'):
        assert four.train_cfg.stages[stage].end == one.train_cfg.stages[stage].end
    assert four.optim_wrapper.optimizer.lr == one.optim_wrapper.optimizer.lr


def test_training_without_stages_follows_the_same_rules():
    cfg = followed(PLAIN, 16)
    assert cfg.train_dataloader.batch_size == 16
    assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval) == (900, 300)
    assert [entry.end for entry in cfg.param_scheduler] == [50, 900]
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1e-3 * 2**0.5)


def test_a_sampler_with_a_batch_of_its_own_follows():
    cfg = followed(SOFT_TEACHER, 32)
    assert cfg.train_dataloader.batch_size == cfg.train_dataloader.sampler.batch_size == 32


def test_adaptive_optimizers_follow_the_square_root_and_others_the_number():
    assert learning_rate_factor('AdamW', 4) == learning_rate_factor('mmdsym.NAdam', 4) == 2
    assert learning_rate_factor('SGD', 4) == 4
    sgd = followed(STAGED, 64, **{'optim_wrapper.optimizer': dict(type='SGD', lr=0.01)})
    assert sgd.optim_wrapper.optimizer.lr == pytest.approx(0.04)


@pytest.mark.parametrize('preset', PRESETS)
def test_every_preset_can_be_asked_for_another_number(preset):
    base = {'iterations': PLAIN, 'stages': STAGED}[preset.split('_')[0]]
    cfg = load(base)
    schedule = Config.fromfile(REPOSITORY / 'configs' / '_base_' / 'schedules' / preset)
    cfg.merge_from_dict(schedule.to_dict())
    cfg.images_per_step = 2 * images_per_device(cfg)
    before = images_per_device(cfg)
    follow_images_per_step(cfg, 1)
    assert images_per_device(cfg) == 2 * before


def test_the_preset_for_several_gpus_is_that_of_one_with_more_images():
    folder = REPOSITORY / 'configs' / '_base_' / 'schedules'
    cfg = Config.fromfile(folder / 'stages_multi_gpu.py')
    assert cfg.images_per_step == 64
    follow_images_per_step(cfg, 4)
    one = Config.fromfile(folder / 'stages_gpu.py')
    for name, stage in one.train_cfg.stages.items():
        assert cfg.train_cfg.stages[name].images == stage.images
        assert cfg.train_cfg.stages[name].end == stage.end / 4


COUNTS = st.dictionaries(
    st.sampled_from(['labelled', 'calibration', 'synthetic', 'unlabelled']),
    st.integers(0, 40),
    min_size=1,
).filter(lambda images: sum(images.values()) > 0)


@given(COUNTS, st.integers(0, 200))
def test_a_batch_is_shared_out_whole_and_forgets_no_source(images, further):
    total = sum(count > 0 for count in images.values()) + further
    shares = share_images(images, total)
    assert sum(shares.values()) == total
    for source, count in images.items():
        assert (shares[source] > 0) == (count > 0)
        exact = total * count / sum(images.values())
        # Who gets an image beyond the share takes it from others, one from each at most.
        assert shares[source] < exact + 1 or shares[source] == 1
        assert shares[source] > exact - len(images)


@given(COUNTS)
def test_the_present_batch_stays_as_it_is(images):
    assert share_images(images, sum(images.values())) == images


@given(st.integers(1, 100), st.floats(0.1, 10))
def test_stages_stay_side_by_side(length, factor):
    lengths = [length * 20, length * 30, length * 10]
    stages, begin = {}, 0
    for name, steps in zip('abc', lengths, strict=True):
        stages[name] = dict(begin=begin, end=begin + steps, images=dict(labelled=8))
        begin += steps
    scaled = list(scale_stages(stages, 1.0, factor).values())
    assert scaled[0]['begin'] == 0
    assert [stage['end'] for stage in scaled[:-1]] == [stage['begin'] for stage in scaled[1:]]


@pytest.mark.parametrize(
    ('wanted', 'processes', 'message'),
    [
        (10, 4, 'cannot be shared by 4 processes: give a multiple of 4'),
        (0, 1, 'is 0: give a whole number'),
        ('many', 1, "is 'many': give a whole number"),
        (2, 1, "leaves 2 images on a device for the 3 sources of stage 'refine': raise it"),
        (16000, 1, "leaves stage 'refine' no iteration"),
    ],
)
def test_numbers_that_cannot_be_are_named(wanted, processes, message):
    with pytest.raises(UserError, match=message):
        followed(STAGED, wanted, processes)


def test_a_completed_config_is_not_scaled_again(tiny_config, monkeypatch):
    once = complete_config(tiny_config(STAGED, images_per_step=32))
    assert images_per_device(once) == 32
    assert complete_config(once).pretty_text == once.pretty_text
    once.launcher = 'pytorch'
    monkeypatch.setenv('WORLD_SIZE', '2')
    assert complete_config(once).pretty_text == once.pretty_text
    once.images_per_step = 64
    with pytest.raises(UserError, match='was written for images_per_step = 32'):
        complete_config(once)


def test_processes_are_counted_before_they_meet(monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '4')
    assert processes_of(Config(dict(launcher='pytorch'))) == 4
    assert processes_of(Config(dict(launcher='none'))) == 1


def scaled_learning_rate(cfg: Config, folder, processes: int) -> float:
    """The learning rate after MMEngine has scaled it, as its runner does before training."""
    from mmdsym.engine.runner import DSYMRunner

    cfg.work_dir = str(folder)
    detector = cfg.model.get('detector', cfg.model)
    detector.backbone.update(pretrained=None)
    runner = DSYMRunner.from_cfg(cfg)
    runner._world_size = processes
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
    groups = runner.optim_wrapper.optimizer.param_groups
    return max(group['lr'] for group in groups)


@pytest.mark.parametrize('processes', [1, 4])
def test_mmengine_scales_by_all_images_of_a_staged_batch(tiny_config, tmp_path, processes):
    cfg = tiny_config(STAGED, **{'train_cfg.stages.joint.images.unlabelled': 24})
    # 8 labelled and 24 unlabelled images on each device.
    cfg.auto_scale_lr = dict(enable=True, base_batch_size=16)
    scaled = scaled_learning_rate(cfg, tmp_path, processes)
    assert scaled == pytest.approx(1e-3 * 2 * processes)


def test_both_ways_of_scaling_at_once_are_refused():
    with pytest.raises(UserError, match='leave out --auto-scale-lr'):
        followed(STAGED, 64, auto_scale_lr=dict(enable=True, base_batch_size=16))
