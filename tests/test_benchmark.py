"""The benchmark: its grid, what it resumes, what it refuses, and the numbers of its tables."""

import argparse
import json
import re
import sys
import threading
from pathlib import Path

import pytest
from conftest import REPOSITORY
from PIL import Image

sys.path.insert(0, str(REPOSITORY / 'tools'))

import benchmark

from mmdsym.benchmark.execution import RunFailed, execute, training_command
from mmdsym.benchmark.grid import Preset, labels_seen, same_method
from mmdsym.benchmark.hardware import commit
from mmdsym.benchmark.report import write_results
from mmdsym.benchmark.run_folder import RunFolder
from mmdsym.benchmark.schedule import in_words, places, run_all, time_left
from mmdsym.benchmark.table import Spread, as_csv, as_markdown, notes_on, summarise
from mmdsym.command_line import add_config_options
from mmdsym.errors import UserError

PRESETS = REPOSITORY / 'configs/benchmark'


def preset_file(folder: Path, **settings) -> Path:
    lines = [f'{name} = {value!r}' for name, value in settings.items()]
    path = folder / 'preset.py'
    path.write_text('\n'.join(lines) + '\n')
    return path


def tiny_preset(folder: Path, **settings) -> Preset:
    configs = PRESETS / 'atss_lite0'
    content = dict(
        fractions=[0.4],
        seeds=[0],
        methods={
            'one': dict(config=str(configs / 'supervised.py')),
            'other': dict(config=str(configs / 'soft_teacher_dense.py'), seeds=[0, 1]),
        },
    )
    return Preset(preset_file(folder, **content | settings))


@pytest.fixture
def folders(tmp_path, tiny_data):
    runs = tiny_preset(tmp_path).runs(f'{tiny_data}/')
    return [RunFolder(run, tmp_path / 'runs') for run in runs]


def result(method='dsym', fraction=0.4, seed=0, score=0.5, **others) -> dict:
    return dict(
        method=method,
        fraction=fraction,
        seed=seed,
        iterations=20,
        labelled_images=160,
        training_hours=0.5,
        network='teacher',
        mAP50=score,
        AP50={'dent': score - 0.1, 'spot': score + 0.1},
        **others,
    )


def test_the_grid_is_method_by_fraction_by_seed(tmp_path):
    runs = tiny_preset(tmp_path, fractions=[0.1, 1.0]).runs('data/x/')
    assert [run.name for run in runs] == [
        'one_10pct_seed0',
        'other_10pct_seed0',
        'other_10pct_seed1',
        'one_100pct_seed0',
        'other_100pct_seed0',
        'other_100pct_seed1',
    ]
    cfg = runs[2].settings
    assert (cfg.data_root, cfg.split, cfg.randomness.seed) == ('data/x/', '10pct_seed1', 1)
    few = tiny_preset(tmp_path).runs('data/x/', [0.2], [3], ['one'], {'train_cfg.max_iters': 5})
    assert [run.name for run in few] == ['one_20pct_seed3'] and few[0].iterations == 5
    paper = tiny_preset(tmp_path).runs('data/x/', seeds=[0, 1], paper_labels=True)
    assert {run.split for run in paper} == {'paper_seed0'} and len({r.name for r in paper}) == 4


@pytest.mark.parametrize('preset', ['cpu_smoke', 'neu_cpu', 'neu_gpu', 'custom'])
def test_methods_of_a_preset_train_on_equally_many_labelled_images(preset):
    runs = Preset(PRESETS / f'{preset}.py').runs('data/x/')
    assert len({run.name for run in runs}) == len(runs) >= 6
    runs = [run for run in runs if run.seed == 0 and run.fraction == 0.4]
    for run in runs:
        assert run.iterations == runs[0].iterations
        assert run.all_images >= run.labelled_images > 0
    methods = {run.method for run in runs}
    assert {'supervised', 'dsym', 'dsym_without_clip', 'dsym_without_stages'} <= methods
    # Synthetic images come on top of labelled ones.
    assert labels_seen(runs) == []


def test_ablations_switch_off_what_they_say():
    runs = {run.method: run for run in Preset(PRESETS / 'neu_cpu.py').runs('data/x/')}
    stages = runs['dsym_without_stages'].settings.train_cfg.stages
    assert list(stages) == ['joint'] and stages.joint.begin == 0 and stages.joint.images.unlabelled
    for hook in runs['dsym_without_clip'].settings.custom_hooks:
        assert hook.type != 'mmdsym.CLIPPseudoLabelFilterHook' or hook.mode == 'off'


@pytest.mark.parametrize('preset', ['cpu_smoke', 'neu_cpu', 'neu_gpu', 'neu_gpu_short', 'custom'])
def test_settings_of_a_run_survive_the_command_line(preset, tmp_path):
    for run in Preset(PRESETS / f'{preset}.py').runs('data/x/'):
        command = training_command(RunFolder(run, tmp_path), resume=False)
        parser = argparse.ArgumentParser()
        add_config_options(parser)
        told = parser.parse_args(command[command.index('--cfg-options') :]).cfg_options
        assert told == dict(run.overrides)


def test_a_run_gets_the_paths_that_the_benchmark_was_told(tmp_path):
    root, clip = 'data/my parts, new/', 'models/clip (2)'
    options = ['--cfg-options', f'parts.clip={clip}', 'image_size=(64, 64)']
    told = benchmark.parse_arguments(['custom', *options]).cfg_options
    run = tiny_preset(tmp_path).runs(root, options=told)[0]
    folder = RunFolder(run, tmp_path / 'my runs')
    command = training_command(folder, resume=False)
    assert str(folder.work_dir) in command
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    found = parser.parse_args(command[command.index('--cfg-options') :]).cfg_options
    assert (found['data_root'], found['parts.clip']) == (root, clip)
    assert found['image_size'] == (64, 64)


def test_the_short_grid_holds_the_stages_of_the_long_one_in_proportion():
    runs = {run.method: run for run in Preset(PRESETS / 'neu_gpu_short.py').runs('data/x/')}
    long = {run.method: run for run in Preset(PRESETS / 'neu_gpu.py').runs('data/x/')}
    assert len({run.iterations for run in runs.values()}) == 1
    mine, theirs = (grid['dsym'].settings.train_cfg.stages for grid in (runs, long))
    scale = long['dsym'].iterations / runs['dsym'].iterations
    for name, stage in mine.items():
        assert stage.end * scale == pytest.approx(theirs[name].end, rel=0.01)
        assert stage.images == theirs[name].images


@pytest.mark.parametrize('preset', ['neu_cpu', 'neu_gpu'])
def test_without_diffusion_the_batch_lacks_synthetic_images_alone(preset):
    runs = {run.method: run for run in Preset(PRESETS / f'{preset}.py').runs('data/x/')}
    without = runs['dsym_without_diffusion'].settings
    assert without.train_dataloader.dataset.sources.synthetic is None
    whole = runs['dsym'].settings.train_cfg.stages
    for name, stage in without.train_cfg.stages.items():
        assert stage.images.synthetic == 0
        assert dict(stage.images, synthetic=2) == whole[name].images


def test_equal_methods_and_unequal_labels_are_told(tmp_path, tiny_data):
    config = str(PRESETS / 'atss_lite0/supervised.py')
    methods = {
        'a': dict(config=config),
        'b': dict(config=config),
        'c': dict(config=config, options={'train_cfg.max_iters': 7}),
    }
    runs = tiny_preset(tmp_path, methods=methods).runs(f'{tiny_data}/')
    assert same_method(runs) == ['b and a have the same settings: comparing them says nothing.']
    assert labels_seen(runs)[0].endswith('a 14400, b 14400, c 56.')


def test_states_and_resume(folders):
    folder = folders[0]
    assert folder.state == 'missing'
    folder.begin_attempt({'command': 'train', 'commit': 'abc'})
    assert folder.state == 'missing', 'without a checkpoint there is nothing to go on from'
    folder.work_dir.mkdir()
    (folder.work_dir / 'last_checkpoint').write_text('iter_5.pth')
    again = RunFolder(folder.run, folder.path.parent)
    assert again.state == 'interrupted' and len(again.attempts) == 1
    command = training_command(again, resume=True)
    assert '--resume' in command and command.index('--resume') < command.index('--cfg-options')
    again.begin_attempt({'command': 'train', 'commit': 'abc'})
    again.end_attempt(60.0, 0)
    assert again.state == 'trained' and again.seconds == 60
    again.finish(result())
    assert RunFolder(folder.run, folder.path.parent).state == 'finished'


def test_changed_settings_or_labels_are_not_mixed_with_earlier_runs(tmp_path, tiny_data):
    root = tmp_path / 'runs'
    preset = tiny_preset(tmp_path)
    run = preset.runs(f'{tiny_data}/')[0]
    RunFolder(run, root).begin_attempt({'command': 'train'})
    RunFolder(preset.runs(f'{tiny_data}/')[0], root)
    changed = preset.runs(f'{tiny_data}/', options={'train_cfg.max_iters': 3})[0]
    with pytest.raises(UserError, match='other settings or labels'):
        RunFolder(changed, root)


def test_a_run_is_trained_evaluated_and_not_repeated(tmp_path, tiny_data):
    options = {
        'image_size': '(64,64)',
        'train_cfg.max_iters': 2,
        'train_cfg.val_interval': 9,
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
        'val_dataloader.num_workers': 0,
        'val_dataloader.persistent_workers': False,
        'test_dataloader.num_workers': 0,
        'test_dataloader.persistent_workers': False,
        'model.backbone.pretrained': 'None',
        'default_hooks.logger.interval': 1,
    }
    run = tiny_preset(tmp_path).runs(f'{tiny_data}/', methods=['one'], options=options)[0]
    folder = RunFolder(run, tmp_path / 'runs')
    assert write_results([folder], tmp_path) is None
    execute(folder, {'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''})
    assert folder.state == 'finished'
    found = folder.result
    assert found['iterations'] == 2 and found['labelled_images'] == 16
    assert found['network'] == 'detector' and set(found['AP50']) == {'dent', 'spot'}
    assert found['checkpoint'] == 'iter_2.pth' and found['attempts'][0]['exit_status'] == 0
    assert {'command', 'commit', 'hardware', 'versions'} <= set(found['attempts'][0])
    before = folder.log.stat().st_mtime_ns
    assert run_all([folder], [{}], execute, lambda line: None) == []
    assert folder.log.stat().st_mtime_ns == before
    table = write_results([folder], tmp_path)
    assert table.splitlines()[2].startswith('| one | 40 % | 1 | 2 | 16 |')
    assert Image.open(tmp_path / 'label_efficiency.png').size == (840, 540)
    assert json.loads((tmp_path / 'results.json').read_text())['runs'] == [found]


def test_a_failed_run_does_not_stop_the_others(folders):
    lines, done = [], []

    def run(folder, environment):
        if folder.run.method == 'one':
            raise RunFailed('one: the training failed')
        done.append(folder.run.name)

    failures = run_all(folders, [{}], run, lines.append)
    assert failures == ['one: the training failed']
    assert done == ['other_40pct_seed0', 'other_40pct_seed1']
    assert lines[0].startswith('Run 1 of 3: one_40pct_seed0 (missing); time left unknown')


def test_runs_go_side_by_side_each_in_its_place(folders):
    together = threading.Barrier(2, timeout=30)
    used = []

    def run(folder, environment):
        used.append(environment['CUDA_VISIBLE_DEVICES'])
        if len(used) <= 2:
            together.wait()

    assert run_all(folders, places(['0', '3'], 1), run, lambda line: None) == []
    assert set(used[:2]) == {'0', '3'} and len(used) == 3
    assert places(None, 1) == [{}]
    assert len(places(None, 2)) == 2 and int(places(None, 2)[0]['OMP_NUM_THREADS']) >= 1
    shared = places(['0', '3'], 2)
    assert [place['CUDA_VISIBLE_DEVICES'] for place in shared] == ['0', '3', '0', '3']
    assert all(int(place['OMP_NUM_THREADS']) >= 1 for place in shared)


def test_time_left_comes_from_finished_runs(folders):
    first = folders[1]
    first.begin_attempt({})
    first.end_attempt(3600.0, 0)
    first.finish(result())
    # One supervised run with half of the images, and one of the same method.
    assert time_left(folders, 1) == 'about 1 h 30 min left'
    assert time_left(folders, 2) == 'about 45 min left'
    assert in_words(12) == '12 s'


def test_tables_give_mean_and_spread():
    rows = summarise(
        [result(seed=0, score=0.5), result(seed=1, score=0.7), result('supervised', score=0.4)]
    )
    assert [row.method for row in rows] == ['dsym', 'supervised']
    assert rows[0].overall.mean == pytest.approx(0.6)
    assert rows[0].overall.deviation == pytest.approx(0.1414, abs=1e-4)
    lines = as_markdown(rows).splitlines()
    assert lines[2] == (
        '| dsym | 40 % | 2 | 20 | 160 | 0.50 | teacher | 60.0 ± 14.1 | 50.0 ± 14.1 | 70.0 ± 14.1 |'
    )
    assert lines[3].endswith('| 40.0 | 30.0 | 50.0 |')
    head, first, second = as_csv(rows).splitlines()
    assert head.endswith(
        'mAP50_mean,mAP50_deviation,dent_mean,dent_deviation,spot_mean,spot_deviation'
    )
    assert first.startswith('dsym,0.4,0 1,20,160,0.5,teacher,0.6,0.1414,')
    assert second.endswith('0.4,,0.3,,0.5,')
    assert Spread.of([0.5]).in_per_cent() == '50.0'


def test_a_class_without_boxes_has_a_dash():
    nothing = float('nan')
    assert Spread.of([nothing, nothing]).in_per_cent() == '–'
    assert Spread.of([nothing, 0.5]) == (0.5, None)
    assert Spread.of([0.4, nothing, 0.6]).mean == pytest.approx(0.5)
    assert Spread.of([None, 0.5, None]) == (0.5, None)


def test_what_is_not_known_is_null_in_every_file_and_a_dash_in_the_table(folders, tmp_path):
    folder = folders[0]
    folder.finish(result('one') | dict(AP50={'dent': float('nan'), 'spot': 0.5}))
    assert folder.result['AP50'] == {'dent': None, 'spot': 0.5}
    assert write_results([folder], tmp_path).splitlines()[2].endswith('| 50.0 | – | 50.0 |')
    for path in (folder.path / 'result.json', tmp_path / 'results.json'):
        json.loads(path.read_text(), parse_constant=pytest.fail)


def test_a_table_says_what_it_does_not_prove_and_what_its_hours_leave_out():
    seeds = [result(seed=seed) for seed in (0, 1, 2)]
    assert notes_on(seeds) == []
    few = result('supervised', part_hours={'diffusion model': 1.04})
    seeds_note, hours_note = notes_on([*seeds, few])
    assert 'Fewer than 3 seeds of supervised (40 %): ' in seeds_note and 'dsym' not in seeds_note
    assert hours_note.endswith('took: diffusion model 1.04.')
    assert notes_on([few])[0].startswith('Fewer than 3 seeds of supervised (40 %): ')
    assert notes_on([seeds[0], few])[0].startswith('Fewer than 3 seeds of every row: ')


@pytest.mark.parametrize('content', ['{"finger', '[]', '{"fingerprint": "a"}', '7', '\x00'])
@pytest.mark.parametrize('name', ['record.json', 'result.json'])
def test_what_is_not_ours_is_told_in_a_sentence(folders, content, name):
    folders[0].path.mkdir(parents=True)
    (folders[0].path / name).write_text(content)
    with pytest.raises(UserError, match=f'{name} is damaged, or of another program: move'):
        assert RunFolder(folders[0].run, folders[0].path.parent).result


def test_labelled_images_may_stay_the_same_for_all_seeds(tmp_path):
    preset = preset_file(tmp_path, labels_seed=0, methods=dict(one=dict(config='one.py')))
    runs = Preset(preset).runs('data/', fractions=[0.4], seeds=[0, 1])
    assert [(run.name, run.split) for run in runs] == [
        ('one_40pct_seed0', '40pct_seed0'),
        ('one_40pct_seed1', '40pct_seed0'),
    ]
    assert [run.overrides['randomness.seed'] for run in runs] == [0, 1]


def test_a_copy_without_history_is_told_its_commit(monkeypatch, tmp_path):
    monkeypatch.setenv('MMDSYM_COMMIT', 'abc')
    assert commit() != 'abc'
    monkeypatch.setenv('PATH', str(tmp_path))
    assert commit() == 'abc'


def test_wrong_calls_are_named(tmp_path, tiny_data):
    with pytest.raises(UserError, match='there is no preset'):
        benchmark.find_preset('nothing')
    with pytest.raises(UserError, match='runs nothing'):
        benchmark.parse_arguments(['neu-cpu', '--parallel', '0'])
    with pytest.raises(UserError, match="no method 'dsim'"):
        tiny_preset(tmp_path).runs('data/x/', methods=['dsim'])
    with pytest.raises(UserError, match=re.escape('1.5 is outside (0, 1]')):
        tiny_preset(tmp_path).runs('data/x/', fractions=[1.5])
    custom = benchmark.find_preset('custom')
    with pytest.raises(UserError, match='say where they are by --data-root'):
        benchmark.find_data(benchmark.parse_arguments(['custom']), custom, tmp_path)
    runs = tiny_preset(tmp_path).runs(f'{tiny_data}/', fractions=[0.3])
    with pytest.raises(UserError, match='30pct_seed0 does not exist'):
        benchmark.require_labels(runs, f'{tiny_data}/')


@pytest.fixture
def train(tmp_path, tiny_data, monkeypatch):
    """Returns a function that runs the benchmark; each run finishes at once, and nothing trains."""

    def execute(folder, environment):
        folder.begin_attempt({})
        folder.finish(result(folder.run.method, folder.run.fraction, folder.run.seed))

    monkeypatch.setattr(benchmark, 'execute', execute)
    monkeypatch.setattr(benchmark.signal, 'signal', lambda *_: None)
    preset, out = tiny_preset(tmp_path, labels_seed=0).path, tmp_path / 'out'

    def call(*options: str) -> Path:
        data = ['--data-root', str(tiny_data), '--out', str(out)]
        benchmark.main([str(preset), *data, *options])
        return out

    return call


def test_results_are_of_all_finished_runs_whichever_are_asked_for(train):
    out = train()
    written = ('table.md', 'table.csv', 'results.json')
    before = {name: (out / name).read_text() for name in written}
    assert len(json.loads(before['results.json'])['runs']) == 3
    train('--methods', 'other', '--seeds', '1')
    assert {name: (out / name).read_text() for name in written} == before
    train('--methods', 'one', '--seeds', '7')
    runs = json.loads((out / 'results.json').read_text())['runs']
    found = [(run['method'], run['seed']) for run in runs]
    assert found == [('one', 0), ('other', 0), ('other', 1), ('one', 7)]


def test_earlier_runs_of_other_settings_are_left_out_and_told(train, capsys):
    out = train()
    runs = out / 'runs'
    (runs / 'other_40pct_seed0/result.json').write_text('{')
    for name in ('gone_40pct_seed0', 'one_10pct_seed0'):
        (runs / name).mkdir()
        left = result(name.split('_')[0])
        (runs / name / 'result.json').write_text(json.dumps(left))
    train('--methods', 'one', '--seeds', '7', '--cfg-options', 'train_cfg.max_iters=5')
    table = (out / 'table.md').read_text()
    assert table.splitlines()[2].startswith('| one | 40 % | 1 |')
    line = (
        'Left out though finished: gone_40pct_seed0 (not of this preset); one_10pct_seed0 (of '
        'another split); one_40pct_seed0, other_40pct_seed1 (of other settings or labels than '
        'now); other_40pct_seed0 (damaged).'
    )
    assert line in table.splitlines() and line in capsys.readouterr().out


def test_a_dry_run_writes_nothing(tmp_path, tiny_data, capsys):
    out = tmp_path / 'out'
    preset = str(tiny_preset(tmp_path).path)
    arguments = [preset, '--data-root', str(tiny_data), '--out', str(out), '--dry-run']
    benchmark.main([*arguments, '--seeds', '0'])
    printed = capsys.readouterr().out
    assert '| one_40pct_seed0 | missing | 1800 | 14400 | atss_lite0/supervised.py |' in printed
    assert '0 of 2 runs are finished' in printed and not out.exists()
