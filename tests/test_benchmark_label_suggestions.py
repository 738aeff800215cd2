"""The measurement of suggested labels: really run on tiny data, resumed, and blind to labels."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from mmengine.registry import DefaultScope

OPTIONS = (
    'image_size=(64,64)', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2',
    'model.backbone.pretrained=None', 'model.test_cfg.score_thr=0.0',
    'model.test_cfg.max_per_img=5', 'train_dataloader.batch_size=2',
    *(f'{part}_dataloader.{setting}' for part in ('train', 'val', 'test')
      for setting in ('num_workers=0', 'persistent_workers=False')),
)  # fmt: skip


@pytest.fixture
def tool():
    path = REPOSITORY / 'tools/benchmark_label_suggestions.py'
    spec = importlib.util.spec_from_file_location('benchmark_label_suggestions', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    DefaultScope._instance_dict.clear()


@pytest.fixture
def benchmark(tool, tiny_data, tmp_path, monkeypatch):
    """Runs the tool on the tiny data; returns what it wrote."""

    def run(*options, data: Path = tiny_data) -> dict:
        arguments = [
            '--config', REPOSITORY / 'configs/baselines/supervised_neu_20pct.py',
            '--data-root', data, '--start', 0.4, '--add', 0.2, '--seeds', 0,
            '--out', tmp_path / 'out', *options, '--cfg-options', *OPTIONS,
        ]  # fmt: skip
        monkeypatch.setattr(sys, 'argv', ['benchmark', *map(str, arguments)])
        tool.main()
        return json.loads((tmp_path / 'out/results.json').read_text())

    return run


def test_the_experiment_runs_and_goes_on_where_it_was(benchmark, tool, tiny_data, tmp_path):
    results = benchmark()
    (result,) = results['by_seed'].values()
    assert all(0 <= result[name] <= 1 for name in ('base', 'suggested', 'random'))
    assert result['added_images'] == 2
    annotations = tiny_data / 'annotations'
    labelled = json.loads((annotations / '40pct_seed0/labelled.json').read_text())
    unlabelled = json.loads((annotations / '40pct_seed0/unlabelled.json').read_text())
    truth = json.loads((annotations / 'train.json').read_text())
    for arm in ('suggested', 'random'):
        content = json.loads((tmp_path / f'out/seed0/{arm}.json').read_text())
        known = [image['id'] for image in labelled['images']]
        added = [image['id'] for image in content['images'] if image['id'] not in known]
        assert len(added) == 2 and set(added) <= {i['id'] for i in unlabelled['images']}
        expected = [row for row in truth['annotations'] if row['image_id'] in known + added]
        assert sorted(r['id'] for r in content['annotations']) == sorted(r['id'] for r in expected)
        assert (tmp_path / f'out/seed0/{arm}/iter_2.pth').is_file()

    # What is finished is not computed again.
    build = tool.build_runner
    tool.build_runner = None
    assert benchmark() == results
    # What is not goes on from its checkpoint and ends the same.
    tool.build_runner = build
    state = tmp_path / 'out/seed0/random/benchmark.json'
    content = json.loads(state.read_text())
    del content[tool.METRIC]
    state.write_text(json.dumps(content))
    assert benchmark() == results

    # Another experiment is not mixed with this one.
    state.write_text(json.dumps({'key': 'other'}))
    with pytest.raises(SystemExit):
        benchmark()


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        (('--start', '0.3'), '30pct_seed0/labelled.json does not exist'),
        (('--seeds', '7'), '40pct_seed7/labelled.json does not exist'),
        (('--add', '5'), '--start and --add are shares'),
        (('--config', 'configs/none.py'), 'there is no config configs/none.py'),
    ],
)
def test_what_cannot_work_is_refused_at_once(benchmark, tmp_path, capsys, options, sentence):
    with pytest.raises(SystemExit):
        benchmark(*options)
    assert sentence in capsys.readouterr().err and not (tmp_path / 'out').exists()


def test_the_summary_compares_with_random(tool):
    rows = {
        0: dict(base=0.5, suggested=0.6, random=0.55),
        1: dict(base=0.5, suggested=0.6, random=0.6),
    }
    summary = tool.summarise(rows)
    assert summary['gain_over_random'] == {'mean': 2.5, 'deviation': 3.54}
    assert summary['base'] == {'mean': 50.0, 'deviation': 0.0}
    assert tool.summarise({0: rows[0]})['base']['deviation'] is None


def test_a_config_that_several_processes_left_trains_in_one(tool, tiny_data, tmp_path):
    config = tmp_path / 'left.py'
    base = REPOSITORY / 'configs/baselines/supervised_neu_20pct.py'
    config.write_text(f"_base_ = '{base}'\nlauncher = 'pytorch'\n")
    args = argparse.Namespace(config=str(config), data_root=tiny_data, cfg_options=None)
    assert tool.run_config(args, tmp_path / 'labelled.json', tmp_path, 0).launcher == 'none'
