"""Every iteration gets what its stage declares, the same after a resume and on any rank."""

import numpy as np
import pytest
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, init_default_scope

from mmdsym.config import complete_config
from mmdsym.datasets import MultiSourceDataset, StagedSampler
from mmdsym.errors import UserError
from mmdsym.stages import StageSchedule


class Numbers(BaseDataset):
    """A data set that only has a length."""

    def __init__(self, length: int, classes=('dent',)) -> None:
        super().__init__(
            data_prefix={}, metainfo=dict(classes=classes), lazy_init=True, serialize_data=False
        )
        self.data_list = [{}] * length
        self._fully_initialized = True


def dataset() -> MultiSourceDataset:
    return MultiSourceDataset(
        dict(labelled=Numbers(5), calibration=Numbers(2), synthetic=None, unlabelled=Numbers(7))
    )


SCHEDULE = StageSchedule(
    dict(
        burn_in=dict(begin=0, end=6, images=dict(labelled=3)),
        joint=dict(begin=6, end=20, images=dict(labelled=2, unlabelled=2)),
        refine=dict(begin=20, end=30, images=dict(labelled=1, calibration=1, unlabelled=3)),
    )
)


def sampler(rank: int = 0, world_size: int = 1) -> StagedSampler:
    made = StagedSampler(dataset(), seed=7)
    made.rank, made.world_size = rank, world_size
    made.follow(SCHEDULE)
    return made


def sources(batch) -> list[str]:
    names = ['labelled'] * 5 + ['calibration'] * 2 + ['unlabelled'] * 7
    return [names[request.index] for request in batch]


def test_batches_are_composed_as_the_stage_says():
    batches = list(sampler())
    assert len(batches) == SCHEDULE.max_iters
    for iteration, batch in enumerate(batches):
        images = SCHEDULE.at(iteration).images
        expected = [name for name, count in images.items() for _ in range(count)]
        assert sources(batch) == expected


def test_a_resumed_run_sees_the_same_batches():
    whole = list(sampler())
    resumed = sampler()
    resumed.follow(SCHEDULE, first_iteration=17)
    assert list(resumed) == whole[17:]


@pytest.mark.parametrize('world_size', [1, 2, 3])
def test_no_image_comes_twice_before_all_came_once(world_size):
    ranks = [list(sampler(rank, world_size)) for rank in range(world_size)]
    for source, begin, end in (('labelled', 0, 5), ('unlabelled', 7, 14)):
        served = [
            request.index
            for batches in zip(*ranks, strict=True)
            for batch in batches
            for request in batch
            if begin <= request.index < end
        ]
        for first in range(0, len(served) - (end - begin) + 1, end - begin):
            assert sorted(served[first : first + end - begin]) == list(range(begin, end)), source


def test_augmentation_seeds_differ():
    seeds = [request.seed for batch in sampler() for request in batch]
    assert len(set(seeds)) == len(seeds)
    assert set(seeds).isdisjoint(r.seed for b in sampler(1, 2) for r in b)


def test_a_source_that_is_missing_is_named():
    lacking = StagedSampler(MultiSourceDataset(dict(labelled=Numbers(5))), seed=0)
    with pytest.raises(UserError, match="stage 'joint' wants 2 unlabelled images"):
        lacking.follow(SCHEDULE)


def test_sources_must_agree_on_the_classes():
    with pytest.raises(UserError, match='unlabelled images have the classes'):
        MultiSourceDataset(dict(labelled=Numbers(5), unlabelled=Numbers(5, classes=('dnet',))))
    with pytest.raises(UserError, match="unknown source 'labeled'"):
        MultiSourceDataset(dict(labeled=Numbers(5)))


def test_the_same_request_gives_the_same_views(tiny_config):
    init_default_scope('mmdet')
    cfg = complete_config(tiny_config('baselines/teacher_student_neu_40pct.py'))
    data = DATASETS.build(cfg.train_dataloader.dataset)
    made = StagedSampler(data, seed=3)
    made.follow(StageSchedule(cfg.train_cfg.stages))
    requests = made.batch(1500)
    for request in requests:
        one, other = data[request], data[request]
        for branch, image in one['inputs'].items():
            assert (image is None) == (other['inputs'][branch] is None)
            assert image is None or np.array_equal(image, other['inputs'][branch])
    changed = [data[r._replace(seed=r.seed + 1)] for r in requests]
    assert any(
        not np.array_equal(data[r]['inputs']['sup'], c['inputs']['sup'])
        for r, c in zip(requests, changed, strict=True)
        if c['inputs']['sup'] is not None
    )
