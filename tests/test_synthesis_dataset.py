"""Synthetic images as a source of the training."""

import json
import multiprocessing
import random
import textwrap

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from mmengine.config import Config
from mmengine.registry import DATASETS, RUNNERS, DefaultScope, init_default_scope

from mmdsym.config import complete_config, walk
from mmdsym.diffusion.first_rank import from_first_rank
from mmdsym.errors import UserError

PIPELINE = [
    dict(type='mmdsym.LoadCachedImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
]


def labelled_config(root) -> dict:
    return dict(
        type='mmdsym.DefectDataset',
        ann_file=f'{root}/annotations/40pct_seed0/burn_in.json',
        data_prefix=dict(img=f'{root}/images/'),
    )


def synthetic_config(root, cache_dir, **options) -> dict:
    config = dict(
        type='mmdsym.DiffusionSynthesisDataset',
        dataset=labelled_config(root),
        synthesiser=dict(type='mmdsym.CopyPasteSynthesiser'),
        cache_dir=str(cache_dir),
        count=5,
        pipeline=PIPELINE,
    )
    return {**config, **options}


@pytest.fixture(scope='module')
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp('synthetic')


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmdet')


def test_it_serves_what_the_cache_holds(tiny_data, cache_dir):
    dataset = DATASETS.build(synthetic_config(tiny_data, cache_dir))
    assert dataset.metainfo['classes'] == ('dent', 'spot') and len(dataset) == 5
    content = json.loads(dataset.synthesis.annotation_file.read_text())
    for index in range(5):
        sample = dataset[index]
        own = [a for a in content['annotations'] if a['image_id'] == sample['img_id']]
        assert sample['img'].shape == (64, 64, 3)
        boxes = sample['gt_bboxes'].tensor.numpy()
        wanted = np.array([a['bbox'] for a in own])
        wanted[:, 2:] += wanted[:, :2]
        assert np.allclose(boxes, wanted)
        assert sample['gt_bboxes_labels'].tolist() == [a['category_id'] - 1 for a in own]


def test_crowds_are_kept_as_crowds(tiny_data, tmp_path):
    path = tmp_path / 'crowds.json'
    content = json.loads((tiny_data / 'annotations/40pct_seed0/burn_in.json').read_text())
    crowds = {}
    for annotation in content['annotations'][::2]:
        annotation['iscrowd'] = 1
        crowds.setdefault(annotation['image_id'], []).append(annotation['bbox'])
    path.write_text(json.dumps(content))
    names = {image['file_name']: image['id'] for image in content['images']}
    labelled = labelled_config(tiny_data) | dict(ann_file=str(path))
    config = synthetic_config(tiny_data, tmp_path / 'cache', dataset=labelled)
    dataset = DATASETS.build(config)
    made = json.loads(dataset.synthesis.annotation_file.read_text())
    for index, image in enumerate(made['images']):
        own = [a for a in made['annotations'] if a['image_id'] == image['id']]
        kept = [a for a in own if a['iscrowd']]
        assert [a['bbox'] for a in kept] == crowds.get(names[image['source']], [])
        assert not any(a['painted'] for a in kept)
        sample = dataset[index]
        assert sample['gt_ignore_flags'].tolist() == [bool(a['iscrowd']) for a in own]
    assert any(a['painted'] for a in made['annotations'])


def test_the_order_of_classes_is_that_of_the_file(tiny_data, tmp_path):
    """Class indices must match names also where category ids are not in order."""
    path = tmp_path / 'reversed.json'
    source = tiny_data / 'annotations/40pct_seed0/burn_in.json'
    content = json.loads(source.read_text())
    content['categories'].reverse()
    path.write_text(json.dumps(content))
    labelled = labelled_config(tiny_data) | dict(ann_file=str(path))
    config = synthetic_config(tiny_data, tmp_path / 'cache', dataset=labelled)
    config['layout'] = dict(kinds=dict(repaint=1), max_covered=1, defects_per_image=(1, 1))
    dataset = DATASETS.build(config)
    assert dataset.metainfo['classes'] == ('spot', 'dent')
    labelled = DATASETS.build({**labelled, 'pipeline': PIPELINE})
    known = {
        (tuple(entry['bbox']), entry['bbox_label'])
        for index in range(len(labelled))
        for entry in labelled.get_data_info(index)['instances']
    }
    for index in range(len(dataset)):
        for entry in dataset.get_data_info(index)['instances']:
            assert (tuple(entry['bbox']), entry['bbox_label']) in known


def test_it_is_a_source_beside_the_labelled_images(tiny_data, cache_dir):
    sources = dict(
        labelled=labelled_config(tiny_data) | dict(pipeline=PIPELINE),
        synthetic=synthetic_config(tiny_data, cache_dir),
    )
    dataset = DATASETS.build(dict(type='mmdsym.MultiSourceDataset', sources=sources))
    begin, end = dataset.source_range('synthetic')
    assert end - begin == 5
    assert 'synthetic' not in dataset[0]['img_path']
    assert str(cache_dir) in dataset[begin]['img_path']


def test_random_numbers_are_as_if_nothing_had_been_made(tiny_data, tmp_path):
    def numbers():
        return random.random(), np.random.rand(), torch.rand(1).item()

    config = synthetic_config(tiny_data, tmp_path, synthesiser=dict(type=Restless))
    after = []
    for _ in range(2):  # made, then found
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        DATASETS.build(config)
        after.append(numbers())
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    assert after == [numbers()] * 2


class Restless:
    """A synthesiser that draws from every global generator, as building a network does."""

    fingerprint = 'restless'

    def __init__(self, classes):
        assert classes == ('dent', 'spot')
        self.draw()

    def draw(self):
        return random.random() + np.random.rand() + torch.rand(1).item()

    def paint(self, tasks):
        self.draw()
        return [task.image.copy() for task in tasks]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(layout=dict(kindz=1)), "layout has an unknown 'kindz'"),
        (dict(synthesiser=dict(type='mmdsym.CopyPast')), "no synthesiser 'mmdsym.CopyPast'"),
        (
            dict(synthesiser=dict(type='mmdsym.CopyPasteSynthesiser', weight=1)),
            "mmdsym.CopyPasteSynthesiser has .*'weight': correct it",
        ),
        (dict(accept=dict(type='mmdsym.Nothing')), "no acceptance test 'mmdsym.Nothing'"),
        (dict(count=0), 'count of the synthetic images is 0'),
    ],
)
def test_wrong_settings_are_named(tiny_data, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        DATASETS.build(synthetic_config(tiny_data, tmp_path, **options))


def test_labelled_images_without_any_image_are_named(tiny_data, tmp_path):
    path = tmp_path / 'empty.json'
    content = json.loads((tiny_data / 'annotations/40pct_seed0/burn_in.json').read_text())
    path.write_text(json.dumps({**content, 'images': [], 'annotations': []}))
    labelled = labelled_config(tiny_data) | dict(ann_file=str(path))
    with pytest.raises(UserError, match='empty.json lists no images'):
        DATASETS.build(synthetic_config(tiny_data, tmp_path / 'cache', dataset=labelled))


def test_one_rank_works_and_the_other_learns_the_result_or_the_error(tmp_path):
    context = multiprocessing.get_context('fork')
    answers = context.Queue()

    def fail():
        raise UserError('the disk is full')

    def take_part(rank):
        meeting = f'file://{tmp_path / "meeting"}'
        torch.distributed.init_process_group('gloo', meeting, rank=rank, world_size=2)
        made = from_first_rank(lambda: f'made by {rank}')
        try:
            from_first_rank(fail)
        except UserError as error:
            answers.put((made, str(error)))
        torch.distributed.barrier()

    processes = [context.Process(target=take_part, args=(rank,)) for rank in range(2)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=240) for _ in processes]
    for process in processes:
        process.join()
    assert found == [('made by 0', 'the disk is full')] * 2


def with_copy_paste(cfg: Config, count: int) -> None:
    for entry in walk(cfg.train_dataloader):
        if entry.get('type') == 'mmdsym.DiffusionSynthesisDataset':
            entry.synthesiser = dict(type='mmdsym.CopyPasteSynthesiser')
            entry.accept = None
            entry.count = count


def test_the_supervised_baseline_trains_with_synthetic_images(tiny_config, tmp_path):
    cfg = tiny_config('baselines/supervised_synthetic_neu_40pct.py')
    with_copy_paste(cfg, count=4)
    synthetic = cfg.train_dataloader.dataset.sources.synthetic
    synthetic.cache_dir = str(tmp_path / 'cache')
    cfg.work_dir = str(tmp_path)
    for entry in walk(cfg.model):
        if entry.get('pretrained'):
            entry.pretrained = None
    cfg.train_cfg.stages.burn_in.update(end=2, images=dict(labelled=2, synthetic=1))
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.val_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.param_scheduler = None
    cfg.visualizer = dict(type='Visualizer', name='supervised_synthetic')
    cfg.experiment_name = f'supervised_synthetic_{tmp_path.name}'
    runner = RUNNERS.build(cfg)
    seen = []
    forward = runner.model.data_preprocessor.forward

    def spy(data, training=False):
        if training:
            seen.extend(sample.img_path for sample in data['data_samples'])
        return forward(data, training)

    runner.model.data_preprocessor.forward = spy
    runner.train()
    DefaultScope._instance_dict.clear()
    assert sum(str(tmp_path / 'cache') in path for path in seen) == 2 and len(seen) == 6
    assert any(key.endswith('bbox_mAP_50') for key in runner.message_hub.log_scalars)


def test_the_dsym_config_serves_the_synthetic_branch(tiny_data, tmp_path):
    (tmp_path / 'leaf.py').write_text(
        textwrap.dedent(f"""
        _base_ = [
            '{REPOSITORY}/configs/_base_/runtime.py',
            '{REPOSITORY}/configs/_base_/detectors/atss_efficientnet_lite0.py',
            '{REPOSITORY}/configs/_base_/semi/dsym_synthetic.py',
            '{REPOSITORY}/configs/_base_/schedules/stages_cpu.py',
        ]
        data_root = '{tiny_data}/'
        split = '40pct_seed0'
        image_size = (96, 96)
        model = dict(_delete_=True, type='mmdsym.DSYMDetector', detector=_base_.model)
        """)
    )
    cfg = complete_config(Config.fromfile(tmp_path / 'leaf.py'))
    with_copy_paste(cfg, count=3)
    source = cfg.train_dataloader.dataset.sources.synthetic
    assert source.cache_dir == f'{tiny_data}/synthetic/40pct_seed0'
    source.cache_dir = str(tmp_path / 'cache')
    sample = DATASETS.build(source)[0]
    filled = {name: branch for name, branch in sample['inputs'].items() if branch is not None}
    assert list(filled) == ['synthetic'] and filled['synthetic'].shape == (3, 96, 96)
