"""Two processes train all stages together, with synthetic images and the CLIP filter, and agree."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from clip_data import TINY_CLIP
from conftest import REPOSITORY

CONFIG = """
_base_ = [
    '{configs}/_base_/runtime.py',
    '{configs}/_base_/detectors/atss_efficientnet_lite0.py',
    '{configs}/_base_/semi/dsym_synthetic.py',
    '{configs}/_base_/schedules/stages_cpu.py',
]
custom_imports = dict(imports=['mmdsym', 'rank_record'])
data_root = '{data}/'
split = '40pct_seed0'
image_size = (64, 64)

detector = _base_.model
detector.backbone.update(pretrained=None, frozen_stages=-1)
detector.test_cfg.update(score_thr=0.0, max_per_img=5)
model = dict(_delete_=True, type='mmdsym.DSYMDetector', detector=detector)

train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        sources=dict(
            synthetic=dict(
                synthesiser=dict(_delete_=True, type='mmdsym.CopyPasteSynthesiser'),
                accept=None,
                count=4,
                cache_dir='{folder}/synthetic',
            )
        )
    ),
)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader

# Calibrated, but so that every box of an untrained teacher counts.
generous = dict(target_precision=0.0)
train_cfg = dict(
    val_interval=100,
    stages=dict(
        _delete_=True,
        burn_in=dict(begin=0, end=3, images=dict(labelled=1, synthetic=1)),
        joint=dict(
            begin=3,
            end=7,
            images=dict(labelled=1, synthetic=1, unlabelled=1),
            thresholds=generous,
        ),
        refine=dict(
            begin=7,
            end=9,
            images=dict(labelled=1, calibration=1, unlabelled=1),
            thresholds=generous,
        ),
    ),
)
param_scheduler = []
split_folder = '{data}/annotations/40pct_seed0'
clip_filter = dict(
    type='mmdsym.CLIPPseudoLabelFilterHook',
    scorer=dict(
        type='mmdsym.CLIPScorer',
        model={clip},
        features=('embedding', 'trunk'),
        evidence='prototypes',
        prototypes=dict(
            ann_file=split_folder + '/burn_in.json',
            held_out_file=split_folder + '/calibration.json',
            images_dir='{data}/images/',
            cache_dir='{folder}/features',
        ),
    ),
    labelled=dict(ann_file=split_folder + '/burn_in.json', images_dir='{data}/images/'),
    mode='soft',
)
record = dict(type='mmdsym.RankRecord', folder='{folder}')
custom_hooks = [clip_filter, *_base_.custom_hooks, record]
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(('127.0.0.1', 0))
        return one.getsockname()[1]


@pytest.fixture(scope='module')
def ranks(tiny_data, tmp_path_factory) -> list[list[dict]]:
    """What each of two processes did in a run that tools/dist_train.sh started."""
    folder = tmp_path_factory.mktemp('two_processes')
    config = folder / 'two_processes.py'
    config.write_text(
        CONFIG.format(
            configs=REPOSITORY / 'configs', data=tiny_data, folder=folder, clip=repr(TINY_CLIP)
        )
    )
    environment = {
        **os.environ,
        # The script calls `python`.
        'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
        'PYTHONPATH': f'{REPOSITORY}{os.pathsep}{REPOSITORY / "tests"}',
        'PORT': str(free_port()),
        'OMP_NUM_THREADS': '1',
        'CUDA_VISIBLE_DEVICES': '',
    }
    command = [REPOSITORY / 'tools/dist_train.sh', config, '2', '--work-dir', folder / 'run']
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=REPOSITORY, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return [json.loads((folder / f'rank{rank}.json').read_text()) for rank in range(2)]


def test_all_stages_are_run_with_synthetic_images_and_the_filter(ranks):
    for lines in ranks:
        assert [line['stage'] for line in lines] == ['burn_in'] * 3 + ['joint'] * 4 + ['refine'] * 2
        assert all(line['served']['synthetic'] for line in lines[:7])
        assert lines[-1]['fits'] >= 2, 'the filter must have been calibrated for both stages'
    # Weights of zero would prove nothing.
    assert sum(lines[-1]['kept'] for lines in ranks) > 0
    assert all(lines[-1]['unsupervised'] for lines in ranks)


def test_ranks_agree_after_every_iteration(ranks):
    for first, second in zip(*ranks, strict=True):
        for what in ('thresholds', 'student', 'teacher', 'fits'):
            # NaN, before the first calibration, is equal to nothing.
            assert repr(first[what]) == repr(second[what]), (what, first['iteration'])
    thresholds = ranks[0][-1]['thresholds']
    assert len(thresholds) == 4 and all(0 <= value <= 1 for value in thresholds)
    teachers = [line['teacher'] for line in ranks[0]]
    assert len(set(teachers[2:])) == len(teachers[2:]), 'the teacher must have moved each time'


@pytest.mark.parametrize('source', ['labelled', 'synthetic', 'unlabelled'])
def test_no_image_comes_twice_before_all_came_once(ranks, source):
    served = [
        path
        for lines in zip(*ranks, strict=True)
        for line in lines
        # Calibration images come as labelled ones in the last stage.
        if not (source == 'labelled' and line['stage'] == 'refine')
        for path in line['served'][source]
    ]
    number = len(set(served))
    assert number == 4 and len(served) >= 2 * number
    for begin in range(0, len(served) - number + 1, number):
        assert len(set(served[begin : begin + number])) == number
