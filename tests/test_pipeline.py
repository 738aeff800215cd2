"""Planning of a whole run: keys, reuse and refusal, without any training."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import REPOSITORY
from mmengine.config import Config
from mmengine.registry import DefaultScope
from whole_run_data import write_configs

from mmdsym.class_prompts import prompts_by_class
from mmdsym.clip.prompts import build_prompts
from mmdsym.config import complete_config
from mmdsym.errors import UserError
from mmdsym.pipeline import after_training, whole_run
from mmdsym.pipeline.after_training import Finishing, parse_after_training
from mmdsym.pipeline.contents import Contents
from mmdsym.pipeline.description import describe
from mmdsym.pipeline.own_config import renew_evaluation
from mmdsym.pipeline.part_making import make_part, state_of
from mmdsym.pipeline.part_training import CONFIG_NAME, faults_of, hours_of, train_part
from mmdsym.pipeline.parts import declared_parts
from mmdsym.pipeline.progress import iterations_done, seconds_per_iteration
from mmdsym.pipeline.run_record import RunRecord
from mmdsym.pipeline.starts import commits_of, note_start, read_starts
from mmdsym.pipeline.whole_run import WholeRun
from mmdsym.pipeline.work_folder import claimed
from mmdsym.trained_run import TrainedRun


@pytest.fixture
def leaf(tiny_data, tmp_path) -> Path:
    return write_configs(tmp_path, tiny_data)


def load(leaf: Path, **options) -> Config:
    cfg = Config.fromfile(leaf)
    cfg.work_dir = str(leaf.parent / 'run')
    cfg.merge_from_dict(options)
    return cfg


def keys(leaf: Path, **options) -> dict[str, str]:
    return {part.name: part.key for part in declared_parts(complete_config(load(leaf, **options)))}


def files_below(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob('*')}


def burn_in(leaf: Path) -> Path:
    return leaf.parent / 'data/annotations/40pct_seed0/burn_in.json'


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_part_names_become_folders_with_keys(leaf):
    cfg = complete_config(load(leaf))
    source = cfg.train_dataloader.dataset.sources.synthetic
    found = keys(leaf)
    assert (
        source.synthesiser.weights
        == f'{leaf.parent}/data/diffusion/40pct_seed0-' + (found['diffusion'])
    )
    assert source.accept.scorer.weights.endswith(f'/clip/40pct_seed0-{found["clip"]}')
    scorer = next(hook.scorer for hook in cfg.custom_hooks if 'scorer' in hook)
    assert scorer.weights == source.accept.scorer.weights
    again = complete_config(cfg)
    assert again.pretty_text == cfg.pretty_text
    assert [part.key for part in declared_parts(again)] == list(found.values())


def test_keys_stay_where_nothing_that_matters_changes(leaf, tmp_path, tiny_data):
    before = keys(leaf)
    content = json.loads(burn_in(leaf).read_text())
    burn_in(leaf).write_text(json.dumps({**content, 'info': {'year': 2026}}, indent=3))
    edit(leaf.parent / 'data/annotations/val.json', lambda c: c['annotations'].clear())
    text = (leaf.parent / 'tiny_diffusion.py').read_text()
    (leaf.parent / 'tiny_diffusion.py').write_text(text + "log_level = 'ERROR'\n")
    changed = {'train_dataloader.num_workers': 3, 'randomness.seed': 7}
    assert keys(leaf, **changed) == before
    # The same data and configs elsewhere.
    assert keys(write_configs(tmp_path / 'elsewhere', tiny_data)) == before


def move_box(content: dict) -> None:
    content['annotations'][0]['bbox'][0] += 1


def rename_class(content: dict) -> None:
    content['categories'][0]['name'] = 'scratch'


@pytest.mark.parametrize('change', [move_box, rename_class])
def test_a_changed_label_gives_other_keys(leaf, change):
    before = keys(leaf)
    names = ('burn_in', 'calibration', 'labelled', 'unlabelled')
    for path in [burn_in(leaf).with_name(f'{name}.json') for name in names]:
        content = json.loads(path.read_text())
        if content['annotations']:
            edit(path, change)
    after = keys(leaf)
    assert all(after[name] != before[name] for name in before)


def test_a_changed_image_or_part_config_gives_another_key(leaf):
    before = keys(leaf)
    image = (
        leaf.parent
        / 'data/images'
        / json.loads(burn_in(leaf).read_text())['images'][0]['file_name']
    )
    content = image.read_bytes()
    image.write_bytes(content + b'x')
    assert all(keys(leaf)[name] != before[name] for name in before)
    image.write_bytes(content)
    path = leaf.parent / 'tiny_diffusion.py'
    path.write_text(path.read_text().replace('max_iters=4', 'max_iters=5'))
    after = keys(leaf)
    assert after['diffusion'] != before['diffusion'] and after['clip'] == before['clip']


def test_prompts_of_the_user_reach_the_clip_part_alone(leaf):
    before = keys(leaf)
    prompts = dict(dent=['a round dent'], spot=['a dark spot'])
    cfg = complete_config(load(leaf, prompts=prompts))
    clip = next(part for part in declared_parts(cfg) if part.name == 'clip')
    assert clip.config.model.prompts == prompts
    assert clip.key != before['clip']
    assert keys(leaf, prompts=prompts)['diffusion'] == before['diffusion']


def test_prompts_of_classes_that_python_takes_for_words_of_its_own(leaf):
    prompts = {'break': ['a torn sheet'], "operator's mark": ['a chalk line']}

    def rename(content: dict) -> None:
        for category, name in zip(content['categories'], prompts, strict=True):
            category['name'] = name

    for path in (leaf.parent / 'data/annotations').rglob('*.json'):
        edit(path, rename)
    cfg = complete_config(load(leaf, prompts=prompts))
    clip = next(part for part in declared_parts(cfg) if part.name == 'clip')
    # MMEngine writes configs and reads them back.
    for config in (cfg, clip.config):
        again = Config.fromstring(config.pretty_text, '.py')
        told = again.prompts if config is cfg else again.model.prompts
        assert prompts_by_class(told) == prompts
    sentences = build_prompts(list(prompts), told)
    assert sentences[:2] == list(prompts.values())


def test_a_folder_of_the_user_is_taken_as_it_is(leaf):
    cfg = complete_config(load(leaf, **{'parts.diffusion': 'some/model'}))
    assert cfg.train_dataloader.dataset.sources.synthetic.synthesiser.weights == 'some/model'
    assert [part.name for part in declared_parts(cfg)] == ['clip']


def test_a_part_that_nothing_uses_is_not_trained(leaf):
    cfg = load(leaf)
    cfg.train_dataloader.dataset.sources.synthetic = None
    # As options for all runs of a benchmark say it, some of which have no such part.
    cfg.parts.other = dict(config='tiny_clip.py')
    assert [part.name for part in declared_parts(complete_config(cfg))] == ['clip']


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'parts.clip.config': 'nothing.py'}, 'there is no config nothing.py for a part'),
        ({'parts.clip.cofnig': 'x'}, "part clip has an unknown 'cofnig'"),
        ({'parts.clip.folder': None}, 'part clip has no folder'),
        ({'parts.clip': 3}, 'part clip is 3'),
        ({'parts.clip.config': 'tiny.py'}, 'trains nothing that a part could be|no config'),
        ({'after_training.tset': True}, "after_training has an unknown 'tset'"),
        ({'after_training.export': 'detector'}, "names a network 'detector'"),
        ({'split': '30pct_seed0'}, '30pct_seed0/.*does not exist'),
    ],
)
def test_wrong_declarations_are_named(leaf, options, message):
    if options.get('parts.clip.config') == 'tiny.py':
        (leaf.parent / 'plain.py').write_text(
            'model = dict()\ntrain_cfg = dict(max_iters=1)\ncustom_hooks = []\n'
        )
        options = {'parts.clip.config': 'plain.py', 'parts.clip.options': {}}
    with pytest.raises(UserError, match=message):
        WholeRun(load(leaf, **options))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'train_dataloader.dataset.sources.synthetic.layout': dict(strength=0.3)}, 'two numbers'),
        ({'filter': dict(mode='strict')}, "no mode 'strict'"),
        ({'filter': dict(schedule=dict(jiont='soft'))}, "did you mean 'joint'"),
        ({'filter': dict(sheets=3)}, 'sheets'),
    ],
)
def test_what_is_wrong_is_told_before_parts_are_made(leaf, monkeypatch, options, message):
    monkeypatch.setattr(whole_run, 'make_part', lambda part: pytest.fail('a part was made'))
    of_filter = options.pop('filter', {})
    cfg = load(leaf, **options)
    for hook in cfg.custom_hooks:
        if hook.type == 'mmdsym.CLIPPseudoLabelFilterHook':
            hook.update(of_filter)
    with pytest.raises((UserError, TypeError), match=message):
        WholeRun(cfg).execute()
    DefaultScope._instance_dict.clear()


def test_a_plan_names_steps_states_and_times_and_writes_nothing(leaf):
    before = files_below(leaf.parent)
    table = WholeRun(load(leaf)).plan()
    assert files_below(leaf.parent) == before
    for step in ('diffusion model', 'CLIP model', 'synthetic images', 'stage joint', 'report'):
        row = next(line for line in table.splitlines() if f'| {step}' in line)
        assert 'missing' in row
    assert 'rough, from the config' in table and 'Time left in all' in table


def test_a_plan_goes_by_what_was_measured(leaf):
    cfg = complete_config(load(leaf))
    part = declared_parts(cfg)[0]
    log = part.training_folder / '20260101/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    lines = [json.dumps(dict(loss=1, time=300.0, step=step)) for step in (1, 2)]
    log.write_text('\n'.join([*lines, '{"loss": 1, "ti']))
    assert seconds_per_iteration(part.training_folder) == 300
    torch.save({}, part.training_folder / 'iter_2.pth')
    assert iterations_done(part.training_folder) == 2
    row = next(line for line in WholeRun(load(leaf)).plan().splitlines() if '| diffusion' in line)
    assert 'unfinished (2 of 4)' in row and '10 min' in row and 'measured in' in row


def row_of(plan: str, name: str) -> str:
    return next(line for line in plan.splitlines() if f'| {name}' in line)


def left_by_earlier_run(folder: Path, settings: dict, seconds: dict[int, float]) -> None:
    """Writes what a run leaves: its settings, and the time of an iteration."""
    log = folder / '20260101/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    lines = [json.dumps(dict(loss=1, time=time, step=step)) for step, time in seconds.items()]
    log.write_text('\n'.join(lines))
    RunRecord(settings).write(folder)


def test_stages_are_estimated_by_a_run_that_did_the_same_work(leaf):
    run = WholeRun(load(leaf))
    longer = dict(run.record.settings)
    longer |= {'train_cfg.stages.burn_in.end': 20, 'train_cfg.stages.joint.begin': 20}
    longer |= {'train_cfg.stages.joint.end': 50, 'train_cfg.stages.refine.begin': 50}
    longer['train_cfg.stages.refine.end'] = 70
    left_by_earlier_run(leaf.parent / 'longer', longer, {10: 60.0, 20: 60.0, 30: 600.0, 60: 1800.0})
    plan = run.plan()
    assert '2 min' in row_of(plan, 'stage burn_in'), 'its own 2 iterations, as long as theirs'
    assert '40 min' in row_of(plan, 'stage joint') and '/longer' in row_of(plan, 'stage joint')
    assert '60 min' in row_of(plan, 'stage refine')


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('model.detector.backbone.model_name', 'another'),
        ('train_dataloader.dataset.sources.labelled.pipeline.4.scale.0', 640),
        ('train_cfg.stages.joint.images.unlabelled', 16),
        ('custom_hooks.CLIPPseudoLabelFilterHook.mode', 'off'),
    ],
)
def test_stages_are_not_estimated_by_other_work(leaf, key, value):
    run = WholeRun(load(leaf))
    assert run.record.settings[key] != value
    left_by_earlier_run(leaf.parent / 'other', {**run.record.settings, key: value}, {5: 600.0})
    assert 'rough' in row_of(run.plan(), 'stage joint')


def test_the_damaged_record_of_another_run_is_passed_over(leaf):
    (leaf.parent / 'other').mkdir()
    (leaf.parent / 'other/run.json').write_text('{')
    assert 'rough' in row_of(WholeRun(load(leaf)).plan(), 'stage joint')


def test_a_training_without_stages_is_estimated_too(leaf):
    supervised = REPOSITORY / 'configs/baselines/supervised_neu_40pct.py'
    options = dict(data_root=f'{leaf.parent}/data/', work_dir=str(leaf.parent / 'run'))
    run = WholeRun(load(supervised, **options))
    assert 'unknown' in row_of(run.plan(), 'training')
    left_by_earlier_run(leaf.parent / 'earlier', run.record.settings, {5: 2.0})
    assert '60 min' in row_of(run.plan(), 'training'), '1,800 iterations of 2 seconds'


def test_a_finished_part_is_found_and_a_damaged_one_noticed(leaf):
    part = declared_parts(complete_config(load(leaf)))[0]
    assert state_of(part).word == 'missing'
    part.folder.mkdir(parents=True)
    (part.folder / 'mmdsym.json').write_text('{}')
    assert state_of(part).word == 'there', 'its name says what it is'
    part.training_folder.mkdir()
    record = part.training_folder / 'made.json'
    record.write_text(json.dumps(dict(files={'mmdsym.json': 'of another content'})))
    assert faults_of(part.folder, part.training_folder) == ['mmdsym.json']
    assert state_of(part).word == 'damaged'


def test_a_part_that_cannot_be_trained_is_told(leaf, monkeypatch):
    part = declared_parts(complete_config(load(leaf)))[0]
    monkeypatch.setattr('mmdsym.pipeline.part_making._run', lambda folder: 2)
    with pytest.raises(UserError, match='diffusion model could not be trained.*same command'):
        make_part(part)
    monkeypatch.setattr('mmdsym.pipeline.part_making._run', lambda folder: 130)
    with pytest.raises(KeyboardInterrupt):
        make_part(part)


@pytest.fixture
def part(leaf):
    """A part that is about to be trained."""
    part = declared_parts(complete_config(load(leaf)))[0]
    part.training_folder.mkdir(parents=True)
    (part.training_folder / CONFIG_NAME).write_text(part.config.pretty_text)
    return part


def train_by(monkeypatch, part, meanwhile=lambda: None) -> None:
    """Lets a part be trained by writing what a training leaves."""

    def train():
        part.folder.mkdir(parents=True)
        (part.folder / 'mmdsym.json').write_text('{}')
        torch.save({}, part.training_folder / 'iter_4.pth')
        meanwhile()

    runner = SimpleNamespace(train=train)
    monkeypatch.setattr('mmdsym.command_line.build_runner', lambda cfg: runner)
    train_part(part.training_folder)


def test_a_part_says_by_what_it_was_trained(part, monkeypatch):
    train_by(monkeypatch, part)
    assert state_of(part).there
    (start,) = read_starts(part.training_folder)
    assert start['iteration'] == 0 and torch.__version__.startswith(start['versions']['torch'])


def log_hours(part, start: str, first: int, last: int) -> None:
    """Writes what a start of a training logs: an hour for each of its iterations."""
    log = part.training_folder / start / 'vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    steps = range(first, last + 1)
    log.write_text('\n'.join(json.dumps(dict(loss=1, time=3600.0, step=step)) for step in steps))


def test_the_hours_of_a_part_are_those_of_all_its_starts(part, monkeypatch):
    log_hours(part, '20260101_000000', 1, 3)
    torch.save({}, part.training_folder / 'iter_2.pth')
    train_by(monkeypatch, part, lambda: log_hours(part, '20260102_000000', 3, 4))
    assert hours_of(part.training_folder) == pytest.approx(2, abs=0.1), 'and its own seconds'
    # What is damaged is exported anew from the last checkpoint.
    shutil.rmtree(part.folder)
    train_by(monkeypatch, part)
    assert hours_of(part.training_folder) == pytest.approx(4, abs=0.1)


def test_what_was_discarded_is_no_work_on_a_part(part, monkeypatch):
    log_hours(part, '20260101_000000', 1, 3)
    train_by(monkeypatch, part)
    assert hours_of(part.training_folder) < 0.1


def test_data_that_change_while_a_part_is_trained_spoil_no_later_run(leaf, part, monkeypatch):
    with pytest.raises(UserError, match='changed while the diffusion model was trained'):
        train_by(monkeypatch, part, lambda: edit(burn_in(leaf), move_box))
    assert not part.folder.exists() and not list(part.training_folder.glob('*.pth'))


def test_data_that_change_before_a_part_is_trained_are_noticed(leaf, part, monkeypatch):
    edit(burn_in(leaf), move_box)
    with pytest.raises(UserError, match='changed since the folder .* was named after them'):
        train_by(monkeypatch, part)
    assert not part.folder.exists()


def test_two_hooks_of_one_type_both_count():
    def described(*momenta):
        hooks = [dict(type='EMAHook', momentum=momentum) for momentum in momenta]
        return describe(Config(dict(custom_hooks=hooks)), Contents())

    assert described(0.1, 0.2) != described(0.3, 0.2)
    assert described(0.1, 0.2) != described(0.1, 0.3)
    assert described(0.1)['custom_hooks.EMAHook.momentum'] == 0.1


def test_a_hook_that_watches_changes_nothing():
    def described(*hooks):
        return describe(Config(dict(custom_hooks=[dict(type=hook) for hook in hooks])), Contents())

    watched = described('EMAHook', 'mmdsym.PseudoLabelMonitorHook')
    assert watched == described('EMAHook') != described('EMAHook', 'OtherHook')


def test_starts_are_kept_and_a_damaged_list_costs_no_training(tmp_path):
    assert read_starts(tmp_path) == []
    note_start(tmp_path / 'run', 0)
    note_start(tmp_path / 'run', 300)
    starts = read_starts(tmp_path / 'run')
    assert [start['iteration'] for start in starts] == [0, 300]
    assert len(commits_of(starts)) == 1 and starts[0]['processes'] == 1
    (tmp_path / 'run/starts.json').write_text('[{"iteration": 0')
    note_start(tmp_path / 'run', 600)
    assert [start['iteration'] for start in read_starts(tmp_path / 'run')] == [600]


@pytest.fixture
def begun(leaf) -> Path:
    """A work folder with a checkpoint and the record of a run."""
    run = WholeRun(load(leaf))
    run.work_dir.mkdir()
    torch.save({}, run.work_dir / 'iter_3.pth')
    run.record.write(run.work_dir)
    return leaf


def test_the_same_settings_go_on(begun):
    WholeRun(load(begun))
    WholeRun(load(begun, **{'train_dataloader.num_workers': 2, 'default_hooks.logger.interval': 9}))


@pytest.mark.parametrize(
    ('options', 'name'),
    [
        ({'optim_wrapper.optimizer.lr': 0.5}, 'optim_wrapper.optimizer.lr'),
        ({'train_cfg.stages.refine.end': 9}, 'train_cfg.stages.refine.end'),
        ({'randomness.seed': 1}, 'randomness.seed'),
        ({'image_size': (96, 96)}, 'train_dataloader'),
    ],
)
def test_other_settings_are_refused_unless_the_user_insists(begun, options, name):
    before = files_below(begun.parent)
    with pytest.raises(UserError, match=f'other settings or data .*{name}.*--resume'):
        WholeRun(load(begun, **options))
    assert files_below(begun.parent) == before
    WholeRun(load(begun, **options), resume='auto')


def test_changed_labels_are_refused(begun):
    edit(burn_in(begun), move_box)
    with pytest.raises(UserError, match=r'labelled\.ann_file'):
        WholeRun(load(begun))


def test_labels_that_change_while_parts_are_made_are_noticed(begun):
    run = WholeRun(load(begun))
    run.parts = []
    edit(burn_in(begun), move_box)
    with pytest.raises(UserError, match=r'changed since the command started .*labelled\.ann_file'):
        run.execute()


def test_checkpoints_of_an_unknown_run_are_refused(begun):
    (begun.parent / 'run/run.json').unlink()
    with pytest.raises(UserError, match='of which nothing more is known'):
        WholeRun(load(begun))
    (begun.parent / 'run/run.json').write_text('{"settings"')
    with pytest.raises(UserError, match='run.json is damaged'):
        WholeRun(load(begun))


def test_two_processes_never_share_a_work_folder(tmp_path):
    with (
        claimed(tmp_path / 'run'),
        pytest.raises(UserError, match='another process trains in'),
        claimed(tmp_path / 'run'),
    ):
        pass
    with claimed(tmp_path / 'run'):
        pass


def test_a_report_that_fails_does_not_take_the_run_with_it(begun, monkeypatch):
    cfg = complete_config(load(begun))
    finishing = Finishing(cfg, RunRecord({}))

    def fail(name):
        raise ZeroDivisionError('no boxes')

    monkeypatch.setattr(after_training.importlib, 'import_module', fail)
    (line,) = finishing.do('report')
    assert 'ZeroDivisionError: no boxes' in line and 'the same command tries again' in line
    assert not finishing.is_done('report')


def test_a_config_that_was_renamed_is_found_in_its_work_folder(begun):
    cfg = complete_config(load(begun))
    (begun.parent / 'run/earlier_name.py').write_text('')
    assert Finishing(cfg, RunRecord({})).config_path.name == 'earlier_name.py'
    own = begun.parent / 'run' / begun.name
    own.write_text('')
    assert Finishing(cfg, RunRecord({})).config_path == own


def test_a_finished_run_is_tested_on_what_is_asked_for_now(begun):
    cfg = complete_config(load(begun))
    own = begun.parent / 'run' / begun.name
    own.write_text(cfg.pretty_text)
    renew_evaluation(cfg, own.parent)
    assert own.read_text() == cfg.pretty_text
    cfg.test_dataloader.dataset.ann_file = 'annotations/other.json'
    cfg.optim_wrapper.optimizer.lr = 123
    renew_evaluation(cfg, own.parent)
    left = Config.fromfile(own)
    assert left.test_dataloader.dataset.ann_file == 'annotations/other.json'
    assert left.optim_wrapper.optimizer.lr != 123, 'what it was trained with stays'


def started(leaf: Path, monkeypatch, checkpoint: Path) -> tuple[str | None, int]:
    """From which checkpoint the command goes on, and from which iteration it says it does."""
    asked: list[str | None] = []
    monkeypatch.setattr(whole_run, 'train', lambda cfg, goes_on, path: asked.append(path))
    WholeRun(load(leaf), resume=str(checkpoint))._train()
    return asked[0], read_starts(leaf.parent / 'run')[-1]['iteration']


def test_an_interrupted_run_from_a_named_checkpoint_goes_on_from_its_own(begun, monkeypatch):
    run, named = begun.parent / 'run', begun.parent / 'elsewhere/iter_2.pth'
    named.parent.mkdir()
    named.write_bytes(b'weights')
    os.utime(run / 'iter_3.pth', (0, 0))
    # What an earlier run has left there does not follow from it, however late.
    assert started(begun, monkeypatch, named) == (str(named), 2)
    assert started(begun, monkeypatch, named) == (str(named), 2)
    (run / 'iter_4.pth').write_bytes(b'weights')
    (run / 'last_checkpoint').write_text(str(run / 'iter_4.pth'))
    assert started(begun, monkeypatch, named) == (str(run / 'iter_4.pth'), 4)
    named.write_bytes(b'other weights')
    assert started(begun, monkeypatch, named) == (str(named), 2)


def test_results_belong_to_their_checkpoint(begun):
    cfg = complete_config(load(begun))
    record = RunRecord({})
    result = begun.parent / 'run/results.json'
    result.write_text('{}')
    on = Finishing(cfg, record)._on('test')
    record.steps['test'] = dict(on=on, files=[str(result)])
    assert Finishing(cfg, record).is_done('test')
    torch.save({'other': 1}, begun.parent / 'run/iter_3.pth')
    assert not Finishing(cfg, record).is_done('test')


def test_results_of_a_class_without_boxes_are_read_by_every_parser(begun, monkeypatch):
    cfg = complete_config(load(begun))
    finishing = Finishing(cfg, RunRecord({}))
    trained = TrainedRun(cfg, begun, begun.parent / 'run/iter_3.pth', {})
    monkeypatch.setattr(after_training, 'load_run', lambda *_: trained)
    monkeypatch.setattr(after_training, 'test', lambda *_: {'coco/AP50/dent': float('nan')})
    finishing.do('test')
    text = (begun.parent / 'run/results.json').read_text()
    found = json.loads(text, parse_constant=pytest.fail)
    assert found['metrics']['teacher'] == {'coco/AP50/dent': None}


def test_nothing_after_training_is_wanted_where_nothing_is_said(tiny_config):
    cfg = tiny_config('baselines/supervised_neu_40pct.py')
    assert parse_after_training(cfg).steps == ()
