"""What a config says once reaches every place; what it says wrongly is named at once."""

import json

import pytest
from mmengine.registry import DATASETS, init_default_scope

from mmdsym.config import complete_config
from mmdsym.errors import UserError


def test_classes_come_from_the_data(tiny_config):
    cfg = complete_config(tiny_config('dsym_faster_rcnn_r50_neu_40pct.py'))
    assert cfg.model.detector.roi_head.bbox_head.num_classes == 2
    init_default_scope('mmdet')
    for name, source in cfg.train_dataloader.dataset.sources.items():
        # Synthetic images need a trained diffusion model.
        if source is not None and name != 'synthetic':
            assert DATASETS.build(source).metainfo['classes'] == ('dent', 'spot'), name


def test_completing_twice_changes_nothing(tiny_config):
    once = complete_config(tiny_config('baselines/teacher_student_neu_40pct.py'))
    assert complete_config(once).pretty_text == once.pretty_text


def test_a_folder_needs_no_slash(tiny_config):
    name = 'baselines/teacher_student_neu_40pct.py'
    cfg = tiny_config(name)
    bare = tiny_config(name, data_root=cfg.data_root.rstrip('/'))
    assert complete_config(bare).pretty_text == complete_config(cfg).pretty_text


def test_stage_names_become_iterations(tiny_config):
    cfg = complete_config(tiny_config('baselines/teacher_student_neu_40pct.py'))
    assert cfg.param_scheduler[1].end == cfg.train_cfg.stages.refine.end


def test_command_line_sizes_become_tuples(tiny_config):
    cfg = complete_config(
        tiny_config('baselines/teacher_student_neu_40pct.py', image_size=[64, 64])
    )
    steps = cfg.test_dataloader.dataset.pipeline
    assert next(step for step in steps if step.type == 'Resize').scale == (64, 64)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'data_root': 'no/such/folder/'}, 'data_root no/such/folder/ does not exist.*prepare'),
        ({'split': '30pct_seed0'}, '30pct_seed0/.*does not exist'),
        ({'split': None}, 'does not set split'),
        ({'param_scheduler.1.end': 'refin'}, "no stage 'refin': did you mean 'refine'"),
        ({'param_scheduler.1.end': 99999}, 'behind the last stage'),
        ({'train_cfg.stages.joint.begin': 701}, "stage 'joint' begins at iteration 701"),
    ],
)
def test_wrong_settings_are_named(tiny_config, options, message):
    with pytest.raises(UserError, match=message):
        complete_config(tiny_config('baselines/teacher_student_neu_40pct.py', **options))


def test_stated_classes_must_be_those_of_the_data(tiny_config):
    cfg = complete_config(tiny_config('baselines/teacher_student_neu_40pct.py'))
    source = cfg.train_dataloader.dataset.sources.labelled
    source.metainfo = dict(classes=('dent', 'scratch'))
    init_default_scope('mmdet')
    with pytest.raises(UserError, match='states the classes'):
        DATASETS.build(source)


@pytest.mark.parametrize('content', ['', '[]', '{"categories": []}', '{"categories": [{"id": 1}]}'])
def test_damaged_annotations_are_named(tiny_config, tmp_path, content):
    (tmp_path / 'images').mkdir()
    path = tmp_path / 'annotations/40pct_seed0'
    path.mkdir(parents=True)
    for name in ('burn_in', 'calibration', 'unlabelled', '../val'):
        (path / f'{name}.json').write_text(content)
    with pytest.raises(UserError, match='burn_in.json'):
        complete_config(
            tiny_config('baselines/teacher_student_neu_40pct.py', data_root=f'{tmp_path}/')
        )


def test_labels_follow_the_order_of_the_file(tiny_data, tmp_path):
    """Class indices must match names also where category ids are not in order."""
    from mmdsym.datasets import DefectDataset

    content = json.loads((tiny_data / 'annotations/val.json').read_text())
    content['categories'].reverse()
    path = tmp_path / 'reversed.json'
    path.write_text(json.dumps(content))
    data = DefectDataset(ann_file=str(path), data_prefix=dict(img=str(tiny_data / 'images')))
    assert data.metainfo['classes'] == ('spot', 'dent')
    names = {category['id']: category['name'] for category in content['categories']}
    expected = [names[a['category_id']] for a in content['annotations'] if a['image_id'] == 11]
    found = [data.metainfo['classes'][i['bbox_label']] for i in data[0]['instances']]
    assert found == expected
