"""Results of runs in one json and one table, with the mean over seeds where there are several."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import call_tool
from mmengine.config import Config

from mmdsym.benchmark.collect import evaluate
from mmdsym.benchmark.collected_table import as_markdown
from mmdsym.benchmark.grid import digest_of_settings
from mmdsym.trained_run import TrainedRun


def run(seed: int, overall: float, config: str = 'supervised.py', **others) -> dict:
    metrics = {'coco/bbox_mAP_50': overall, 'coco/AP50/dent': overall / 2}
    return dict(
        config=config,
        split='40pct_seed0',
        seed=seed,
        commit='0123456789',
        iterations=20,
        training_hours=0.5 + seed,
        metrics={'detector': metrics},
        **others,
    )


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in table.splitlines()]


def test_seeds_of_one_config_get_a_row_of_their_mean():
    pair = run(0, 0.5, 'dsym.py')
    pair['metrics'] = dict(teacher=pair['metrics']['detector'])
    head, _, *rows = cells(as_markdown([run(0, 0.6), pair, run(1, 0.8)]))
    assert head[-2:] == ['mAP@0.5', 'dent']
    assert [row[3] for row in rows] == ['0', '0', '1', '2 seeds']
    facts = ['supervised', 'detector', '40pct_seed0', '2 seeds', '20', '1.00']
    assert rows[-1] == [*facts, '70.0 ± 14.1', '35.0 ± 7.1']


def test_one_seed_twice_is_no_second_draw():
    rows = cells(as_markdown([run(0, 0.6), run(0, 0.8)]))[2:]
    assert [row[3] for row in rows] == ['0', '0']
    mean = cells(as_markdown([run(0, 0.6), run(0, 0.8), run(1, 0.8)]))[-1]
    assert mean[3] == '2 seeds' and mean[6] == '80.0 ± 0.0'


@pytest.mark.parametrize('name', ['images_per_iteration', 'settings'])
def test_runs_of_other_settings_are_no_seeds_of_one(name):
    runs = [run(0, 0.6, **{name: 16}), run(1, 0.8, **{name: 8})]
    assert [row[3] for row in cells(as_markdown(runs))[2:]] == ['0', '1']


def test_settings_differ_by_what_is_trained_alone():
    def settings(seed: int, folder: str, lr: float) -> bytes:
        cfg = Config(dict(randomness=dict(seed=seed), work_dir=folder, optimizer=dict(lr=lr)))
        return digest_of_settings(cfg, leave_out=['randomness'])

    assert settings(0, 'one', 0.1) == settings(1, 'other', 0.1) != settings(0, 'one', 0.2)


def test_a_run_of_several_processes_is_evaluated_by_one(tmp_path, monkeypatch):
    started = []

    def build_runner(cfg: Config) -> SimpleNamespace:
        started.append(cfg.launcher)
        return SimpleNamespace(test=lambda: {'coco/bbox_mAP_50': 0.5})

    monkeypatch.setattr('mmdsym.benchmark.collect.build_runner', build_runner)
    dataloader = dict(dataset=dict(ann_file='val.json'))
    cfg = Config(dict(launcher='pytorch', model=dict(), test_dataloader=dataloader))
    trained = TrainedRun(cfg, tmp_path / 'left.py', tmp_path / 'iter_1.pth', {})
    assert evaluate(trained, None) == {'coco/bbox_mAP_50': 0.5}
    assert started == ['none'] and cfg.launcher == 'pytorch'


@pytest.fixture
def collect(tmp_path, monkeypatch, capsys):
    """Returns a function that runs the tool on a run of seed 1; its json, and what it printed."""

    def call(*also: Path) -> tuple[dict, str]:
        monkeypatch.setattr('mmdsym.benchmark.collect.describe_run', lambda *_, **__: run(1, 0.8))
        out = tmp_path / 'new.json'
        options = ['--also', *also] if also else []
        call_tool(monkeypatch, 'collect_results.py', tmp_path, '--out', out, *options)
        return json.loads(out.read_text()), capsys.readouterr().out

    return call


def test_runs_of_earlier_jsons_are_taken_over(collect, tmp_path):
    earlier = tmp_path / 'earlier.json'
    earlier.write_text(json.dumps(dict(runs=[run(0, 0.6, note='as it was')])))
    found, printed = collect(earlier)
    assert [each['seed'] for each in found['runs']] == [0, 1]
    assert found['runs'][0]['note'] == 'as it was'
    assert '70.0 ± 14.1' in printed


def test_a_class_without_boxes_is_null_and_may_be_read_again(collect, tmp_path):
    earlier = tmp_path / 'earlier.json'
    known = run(0, 0.6)
    known['metrics']['detector']['coco/AP50/dent'] = float('nan')
    earlier.write_text(json.dumps(dict(runs=[known])))
    found, _ = collect(earlier)
    text = (tmp_path / 'new.json').read_text()
    assert json.loads(text, parse_constant=pytest.fail) == found
    assert found['runs'][0]['metrics']['detector']['coco/AP50/dent'] is None
    assert cells(as_markdown(found['runs']))[2][-1] == '–'


@pytest.mark.parametrize('content', [None, '', '[]', '{"runs": [7]}', '{"runs": []}', '\x00'])
def test_what_is_no_such_json_is_named(collect, tmp_path, capsys, content):
    path = tmp_path / 'other.json'
    if content is not None:
        path.write_text(content)
    with pytest.raises(SystemExit, match='2'):
        collect(path)
    told = capsys.readouterr().err
    assert str(path) in told and told.count('\n') == 1
    assert not (tmp_path / 'new.json').exists()
