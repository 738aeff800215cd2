"""The speed benchmark trains for real, on the same images, and counts what it says it counts."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from mmengine.config import Config
from mmengine.registry import DefaultScope

sys.path.insert(0, str(REPOSITORY / 'tools'))

import benchmark_speed

from mmdsym.benchmark.batches import as_mmdetection_batch, draw_batches, joint_stage
from mmdsym.benchmark.memory import peak_memory_mib
from mmdsym.benchmark.speed import SpeedTest, Variant, read_variants
from mmdsym.benchmark.timing import StepTime, measure_in_turn, median, median_ratio
from mmdsym.errors import UserError

CONFIGS = REPOSITORY / 'configs/benchmark'
STAGES = dict(
    burn_in=dict(begin=0, end=3, images=dict(labelled=2)),
    joint=dict(
        begin=3,
        end=9,
        images=dict(labelled=2, unlabelled=2),
        # Every box of an untrained teacher is kept, so that the unsupervised loss is real.
        thresholds=dict(keep=0.0, drop=0.0),
    ),
)


@pytest.fixture
def variants(tiny_data):
    """DSYM and MMDetection's method on the same small detector."""
    found = []
    for name in ('dsym', 'soft_teacher_dense'):
        cfg = Config.fromfile(CONFIGS / f'atss_lite0/{name}.py')
        cfg.merge_from_dict(dict(data_root=f'{tiny_data}/', image_size=(64, 64)))
        cfg.model.detector.test_cfg.update(score_thr=0.0, max_per_img=3)
        found.append(Variant(name, cfg))
    dsym = found[0].config
    dsym.train_cfg = dict(type='mmdsym.StagedTrainLoop', stages=STAGES)
    dsym.train_dataloader.dataset.sources.synthetic = None
    dsym.custom_hooks = [h for h in dsym.custom_hooks if 'CLIP' not in h.type]
    dsym.param_scheduler = None
    found[1].config.model.semi_train_cfg.cls_pseudo_thr = 0.0
    yield found
    DefaultScope._instance_dict.clear()


def test_variants_train_and_are_compared_with_the_reference(variants):
    test = SpeedTest(variants[0], None, 3)
    trainings = [test.set_up(variant) for variant in variants]
    heads = [training.model.teacher.bbox_head.atss_cls.weight for training in trainings]
    before = [head.clone() for head in heads]
    found = test.measure(variants, trainings)
    for head, earlier, variant in zip(heads, before, variants, strict=True):
        assert not head.equal(earlier), f'the teacher of {variant.name} must have moved'
    ratios = [entry['ratio_to']['soft_teacher_dense'] for entry in found.values()]
    assert ratios[1] == dict(wall=1.0, processor=1.0)
    assert ratios[0]['processor'] > 0 and len(found['dsym']['seconds']) == 2
    assert found['dsym']['kept_boxes_per_image'] == pytest.approx(3, abs=0.5)
    assert 'soft_teacher_dense' in benchmark_speed.as_table(found).splitlines()[0]


def test_a_config_that_several_processes_left_is_timed_in_one(variants):
    variants[0].config.launcher = 'pytorch'
    training = SpeedTest(variants[0], None, 1).set_up(variants[0])
    assert training.runner.launcher == 'none'


def test_the_batch_holds_the_same_images_for_mmdetection(variants):
    cfg = variants[0].config
    batch = draw_batches(cfg, joint_stage(cfg).begin, 1)[0]
    converted = as_mmdetection_batch(batch)
    for key in batch:
        assert set(converted[key]) == {'sup', 'unsup_teacher', 'unsup_student'}
        assert [len(entries) for entries in converted[key].values()] == [2, 2, 2]
    assert converted['inputs']['sup'][0].equal(batch['inputs']['sup'][0])


def test_synthetic_images_count_as_labelled_ones():
    batch = {'inputs': {'sup': ['a', None], 'synthetic': [None, 'b'], 'unsup_teacher': [None] * 2}}
    assert as_mmdetection_batch(batch) == {'inputs': {'sup': ['a', 'b'], 'unsup_teacher': []}}


def test_a_config_with_the_filter_is_measured_with_and_without():
    on, off = read_variants([CONFIGS / 'faster_rcnn_lite0/dsym.py'], {})
    assert (on.name, off.name) == (
        'faster_rcnn_lite0/dsym, filter on',
        'faster_rcnn_lite0/dsym, filter off',
    )
    modes = [[h.mode for h in v.config.custom_hooks if 'CLIP' in h.type] for v in (on, off)]
    assert modes[0] != ['off'] and modes[1] == ['off']
    assert not on.is_reference
    assert read_variants([CONFIGS / 'faster_rcnn_lite0/soft_teacher.py'], {})[0].is_reference


def test_a_config_without_joint_stage_is_refused():
    supervised = read_variants([CONFIGS / 'atss_lite0/supervised.py'], {})[0]
    with pytest.raises(UserError, match='no stage of .*supervised.py uses unlabelled images'):
        SpeedTest(supervised, None, 2)


def test_steps_take_turns_and_medians_forget_outliers():
    order = []
    times = measure_in_turn({'a': lambda: order.append('a'), 'b': lambda: order.append('b')}, 2)
    assert ''.join(order) == 'baabba' and [len(t) for t in times.values()] == [2, 2]
    slow = measure_in_turn({'sleep': lambda: time.sleep(0.02)}, 3)['sleep']
    assert median(slow).wall >= 0.02 > 10 * median(slow).processor
    steady, spiked = [StepTime(1, 2)] * 3, [StepTime(2, 2), StepTime(90, 9), StepTime(2, 2)]
    assert median_ratio(spiked, steady) == (2, 1)


@pytest.mark.skipif(torch.cuda.is_available(), reason='counts the tensors on the GPU instead')
def test_the_peak_of_memory_grows_and_stays_but_is_not_inherited():
    before = peak_memory_mib()
    block = np.ones(2**24 + int(before * 2**17))
    grown = peak_memory_mib()
    assert grown > before and grown >= block.nbytes / 2**20
    del block
    # Linux counts in lots of some pages.
    assert peak_memory_mib() == pytest.approx(grown, abs=8)
    code = 'from mmdsym.benchmark.memory import peak_memory_mib; print(peak_memory_mib())'
    child = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert float(child.stdout) < grown


def test_wrong_calls_are_named(monkeypatch, tmp_path):
    config = str(CONFIGS / 'atss_lite0/dsym.py')
    existing = tmp_path / 'speed.json'
    existing.write_text(json.dumps({}))
    for arguments, message in (
        ([config, '--rounds', '0'], 'measures nothing'),
        ([config, '--checkpoint', 'no.pth'], 'there is no checkpoint no.pth'),
        ([config, '--out', str(existing)], 'exists'),
    ):
        monkeypatch.setattr(sys, 'argv', ['benchmark_speed.py', *arguments])
        with pytest.raises(UserError, match=message):
            benchmark_speed.parse_arguments()
    with pytest.raises(UserError, match='there is no config .*no.py'):
        read_variants([tmp_path / 'no.py'], {})
    with pytest.raises(UserError, match="the configs make 'x'"):
        benchmark_speed.pick([Variant('x', Config())], 'y')
