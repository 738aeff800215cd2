"""The script that tests other versions installs what its set says and runs the tests asked for.

It runs here with a stand-in for Python that notes how it is called.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPT = REPOSITORY / 'tools/check_versions.sh'
SETS = sorted((REPOSITORY / 'requirements/versions').glob('*.txt'))

FAKE_PYTHON = """#!/usr/bin/env bash
# Notes each call and the requirements in it; '-m venv FOLDER' makes one with a copy of this script.
if [[ $1 == -c ]]; then exit 0; fi
echo "$*" >>"$FAKE_LOG"
for argument in "$@"; do
  if [[ $argument == /dev/fd/* ]]; then cat "$argument" >>"$FAKE_LOG"; fi
done
if [[ "$1 $2" == '-m venv' ]]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; fi
if [[ $* == ${FAKE_FAIL:-} ]]; then exit 1; fi
"""


@pytest.fixture
def check(tmp_path):
    """Returns a function that runs the script and gives its exit status and the noted calls."""
    fake = tmp_path / 'python'
    fake.write_text(FAKE_PYTHON)
    fake.chmod(0o755)
    log = tmp_path / 'log'

    def run(*arguments: str, **environment: str) -> tuple[int, str]:
        log.write_text('')
        settings = dict(
            MMDSYM_CHECK_DIR=str(tmp_path / 'sets'),
            MMDSYM_PYTHON=str(fake),
            MMDSYM_MMCV_WHEEL='some/mmcv.whl',
            FAKE_LOG=str(log),
        )
        kept = {k: v for k, v in os.environ.items() if not k.startswith('MMDSYM_')}
        done = subprocess.run(
            ['bash', str(SCRIPT), *arguments],
            env=kept | settings | environment,
            capture_output=True,
            text=True,
        )
        return done.returncode, log.read_text() + done.stderr

    return run


def test_the_pinned_set_is_the_lock(check):
    status, calls = check('pinned', 'tests/test_stages.py', '-k', 'ramps')
    assert status == 0
    lines = calls.splitlines()
    lock = (REPOSITORY / 'requirements/lock.txt').read_text().splitlines()
    pins = [line for line in lock if '==' in line and not line.startswith(('#', 'mmcv'))]
    assert all(lines.count(pin) == 1 for pin in pins), 'each once, and mmcv from the wheel'
    assert lines[-1] == '-m pytest tests/test_stages.py -k ramps'
    assert lines.index('torch==2.8.0') < next(i for i, x in enumerate(lines) if 'mmcv.whl' in x)


def test_what_is_done_is_not_done_again(check):
    check('pinned', 'tests/test_stages.py')
    _, calls = check('pinned', 'tests/test_stages.py')
    assert 'install' not in calls and 'venv' not in calls
    _, calls = check('pinned', 'tests/test_stages.py', MMDSYM_MMCV_WHEEL='other.whl')
    assert 'other.whl' in calls and 'torch==' not in calls


def test_an_interrupted_set_up_goes_on(check):
    status, _ = check('pinned', FAKE_FAIL='*mmcv.whl')
    assert status != 0
    status, calls = check('pinned')
    assert status == 0 and 'mmcv.whl' in calls and 'venv' not in calls


@pytest.mark.parametrize('fails', ['', '-m pytest tests/deployment', '-m pytest --ignore*'])
def test_without_tests_named_all_run_in_two_processes(check, fails):
    status, calls = check('pinned', FAKE_FAIL=fails)
    assert status == bool(fails)
    tested = [line for line in calls.splitlines() if line.startswith('-m pytest')]
    assert tested == ['-m pytest tests/deployment', '-m pytest --ignore=tests/deployment']


def test_failed_tests_fail_the_script(check):
    status, _ = check('pinned', 'tests/x.py', FAKE_FAIL='-m pytest*')
    assert status == 1


def test_forks_take_the_place_of_the_originals(check):
    _, calls = check('onedl')
    lines = calls.splitlines()
    assert 'onedl-mmengine==0.10.12' in lines and 'onedl-mmdetection==3.5.1' in lines
    assert not [line for line in lines if line.startswith(('mmengine==', 'mmdet==', 'mmcv=='))]
    assert 'numpy==1.26.4' in lines, 'all else is that of the lock'


def test_an_unknown_set_is_answered_with_those_known(check):
    status, told = check('newest')
    assert status == 2 and 'known are pinned onedl' in told


@pytest.mark.parametrize('path', SETS, ids=lambda path: path.stem)
def test_sets_are_pinned(path):
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith('#')]
    assert lines
    for line in lines:
        (pin,) = Requirement(line).specifier
        assert pin.operator == '==', line
