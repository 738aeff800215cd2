"""How to get the same again: versions, machine, seed, time, commands and config."""

from __future__ import annotations

import platform
import shlex
from datetime import datetime
from pathlib import Path

import torch
from mmengine import Config

from mmdsym.benchmark.hardware import commit, processor
from mmdsym.config import walk
from mmdsym.pipeline.starts import commits_of, read_starts
from mmdsym.report.material import Material
from mmdsym.report.parts import Section, Table
from mmdsym.report.text_log import environment_of
from mmdsym.versions import installed_version

from .headline import duration

_PACKAGES = (
    'mmdsym',
    'torch',
    'torchvision',
    'mmengine',
    'mmcv',
    'mmdet',
    'numpy',
    'timm',
    'diffusers',
    'open_clip_torch',
    'pycocotools',
)


def environment_section(material: Material) -> Section:
    """Shows where and with what the run was trained, and with what this report was written."""
    trained = environment_of(material.work_dir)
    config = material.config
    rows = [('seed', str((config.get('randomness') or {}).get('seed', 'not set')))]
    rows += [(f'training: {name}', value) for name, value in trained.items() if name != 'seed']
    starts = read_starts(material.work_dir)
    rows += [(f'training: start {number}', text) for number, text in _starts(material, starts)]
    rows.append(('training: iterations', _iterations(material)))
    seconds = material.log.training_seconds
    if seconds:
        rows.append(('training: time in iterations', duration(seconds)))
    rows += [
        ('report: machine', _machine()),
        ('report: written', datetime.now().astimezone().isoformat(sep=' ', timespec='seconds')),
        ('report: commit of mmdsym', commit()),
        *(
            (f'report: {package}', installed_version(package) or 'not installed')
            for package in _PACKAGES
        ),
    ]
    text = ['What was written down when training started, and what wrote this report.']
    if len(commits_of(starts)) > 1:
        text.append('Several commits took part, so that no single one makes the run again.')
    if not trained:
        text.append('The text log of the run is not there, so its machine is not known.')
    return Section(text, (Table(('', ''), rows),))


def command_section(material: Material) -> Section:
    """Shows the commands that make the run again."""
    config, run = material.config, material.run
    path, folder = str(run.config_path), str(material.work_dir)
    root = Path(config.get('data_root') or 'data/NAME')
    prepare = ['python', 'tools/prepare_dataset.py', 'PATH_OF_THE_RAW_DATA', '--name', root.name]
    if str(root.parent) not in ('data', '.'):
        prepare += ['--out', str(root.parent)]
    commands = [prepare]
    types = {str(entry.get('type', '')).split('.')[-1] for entry in walk(config.to_dict())}
    if 'DiffusionSynthesisDataset' in types:
        commands.append(['python', 'tools/synthesize.py', path])
    commands += [
        ['python', 'tools/train.py', path, '--work-dir', f'{folder}_again'],
        ['python', 'tools/test.py', path, str(run.checkpoint_path)],
        ['python', 'tools/write_report.py', folder],
        ['python', 'tools/export_detector.py', folder, '--out', f'{folder}_exported'],
    ]
    text = (
        'In the repository of mmdsym, with its environment. The first command wants the options '
        'with which the data were prepared, such as --split, --tile or --demo. The config is the '
        'completed one, with all that the command line changed. With the same packages and the '
        'same machine the run repeats itself up to rounding; the last command makes the detector '
        'to deploy.'
    )
    return Section((text,), listing='\n'.join(map(shlex.join, commands)))


def config_section(material: Material) -> Section:
    """Shows the completed config."""
    text = f'{material.run.config_path.name}, as training completed it.'
    return Section((text,), listing=_config_text(material.run.config_path))


def _config_text(path: Path) -> str:
    try:
        return path.read_text(encoding='utf-8')
    except UnicodeDecodeError:
        return Config.fromfile(path).pretty_text


def _starts(material: Material, starts: list[dict]) -> list[tuple[int, str]]:
    told = [_in_words(start) for start in starts]
    # Runs of other tools than ours leave only the names of their folders.
    return list(enumerate(told or map(_time, material.log.starts), 1))


def _in_words(start: dict) -> str:
    facts = [str(start.get('time', 'at an unknown time'))]
    facts.append(f'from iteration {start.get("iteration", "?")}')
    facts.append(f'commit {start.get("commit", "unknown")}')
    facts.append(str(start.get('hardware', 'unknown machine')))
    processes = start.get('processes')
    return ', '.join([*facts, *([f'{processes} processes'] if processes not in (None, 1) else [])])


def _time(start: str) -> str:
    try:
        return datetime.strptime(start, '%Y%m%d_%H%M%S').isoformat(sep=' ')
    except ValueError:
        return start


def _iterations(material: Material) -> str:
    planned = material.planned_steps
    return f'{material.step}' + (f' of {planned}' if planned else '')


def _machine() -> str:
    parts = [f'{processor()}, {platform.system()}']
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ', '.join([*parts, f'Python {platform.python_version()}'])
