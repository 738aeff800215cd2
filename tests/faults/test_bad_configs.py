"""Configs at fault: one sentence that names the file, and no traceback."""

from __future__ import annotations

import argparse

import pytest
from mmengine.registry import RUNNERS, DefaultScope
from tools_in_processes import write_training

from mmdsym.command_line import read_config
from mmdsym.config_faults import config_faults_told
from mmdsym.errors import UserError


@pytest.fixture(autouse=True)
def scope():
    yield
    DefaultScope._instance_dict.clear()


def arguments(path, **options) -> argparse.Namespace:
    return argparse.Namespace(
        config=str(path), cfg_options=options, work_dir=None, launcher='none', local_rank=0
    )


UNREADABLE = {
    'a syntax error': 'model = dict(',
    'an unknown name': 'model = nothing',
    'a missing base': "_base_ = 'absent.py'",
    'an error of its own': "raise RuntimeError('two\\nlines')",
    'a division by zero': 'a = 1 / 0',
    'no UTF-8': b'a = "\xff"',
    'zeros': bytes(20),
    'a key that is set twice by its bases': "_base_ = ['one.py', 'one.py']",
}


@pytest.mark.parametrize('case', UNREADABLE)
def test_a_config_that_cannot_be_read_is_named(tmp_path, case):
    (tmp_path / 'one.py').write_text('a = 1')
    path = tmp_path / 'mine.py'
    text = UNREADABLE[case]
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match='cannot be read as a config') as caught:
        read_config(arguments(path))
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)


WRONG = {
    'an unknown detector': (
        {'model.detector.type': 'RetinaNett'},
        "says type='RetinaNett', which mmdet does not know as a model",
    ),
    'an unknown hook': (
        {'default_hooks.timer.type': 'Tymer'},
        "says type='Tymer', which mmdet does not know as a hook",
    ),
    'an unknown setting': (
        {'model.max_ratio': 3},
        "gives DSYMDetector the setting 'max_ratio', which it does not have",
    ),
    'an unknown setting of a hook': (
        {'default_hooks.finite_steps.patients': 3},
        "gives FiniteStepHook the setting 'patients', which it does not have",
    ),
}


@pytest.mark.parametrize('case', WRONG)
def test_a_setting_that_nobody_knows_is_named(tiny_data, tmp_path, case):
    options, message = WRONG[case]
    path = write_training(tmp_path, tiny_data)
    with pytest.raises(UserError) as caught, config_faults_told(str(path)):
        cfg = read_config(arguments(path, **options))
        cfg.work_dir = str(tmp_path / 'run')
        cfg.experiment_name = f'bad_{len(str(options))}_{case}'
        RUNNERS.build(cfg)
    assert message in str(caught.value) and str(path) in str(caught.value)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('error', [KeyError('key'), TypeError('unsupported operand'), OSError()])
def test_errors_of_the_program_keep_their_traceback(error):
    with pytest.raises(type(error)), config_faults_told('mine.py'):
        raise error
