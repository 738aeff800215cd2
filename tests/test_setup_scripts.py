"""The set-up is complete, may be run twice, goes on after an interruption, destroys nothing.

The scripts run here with a stand-in for Python that notes how it is called; what pip and the
compiler really do is seen by the continuous integration, which starts from nothing.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(REPOSITORY.glob('tools/*.sh')) + [REPOSITORY / '.ci' / 'run']

FAKE_PYTHON = """#!/usr/bin/env bash
# Notes each call; '-m venv FOLDER' makes a folder with a copy of this script.
if [[ $* != '-c '* ]]; then echo "$*" | head -n 1 >>"$FAKE_LOG"; fi
if [[ -n ${FAKE_FAIL:-} && $* == $FAKE_FAIL ]]; then exit 1; fi
if [[ "$1 $2" == '-m venv' ]]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; fi
if [[ $* == '-V' ]]; then echo 'Python 3.11.0'; fi
"""


def read_pins(*names: str) -> dict[str, str]:
    pins = {}
    for name in names:
        for line in (REPOSITORY / 'requirements' / name).read_text().splitlines():
            line = line.split('#')[0].strip()
            if line:
                requirement = Requirement(line)
                version = re.fullmatch(r'==([^,*]+)', str(requirement.specifier))
                assert version, f'{name}: {line} is not pinned'
                pins[canonicalize_name(requirement.name)] = version[1]
    return pins


def needed_by(package: str) -> list[Requirement]:
    try:
        lines = metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        # A package of another platform.
        return []
    parsed = [Requirement(line) for line in lines]
    return [item for item in parsed if not item.marker or item.marker.evaluate({'extra': ''})]


def test_the_lock_holds_everything_that_its_packages_need():
    pins = read_pins('lock.txt', 'build.txt')
    pins['opencv-python'] = pins['opencv-python-headless']
    faults = [
        f'{package} needs {requirement}'
        for package in pins
        for requirement in needed_by(package)
        if not is_met(requirement, pins)
    ]
    assert not faults


def is_met(requirement: Requirement, pins: dict[str, str]) -> bool:
    version = pins.get(canonicalize_name(requirement.name))
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def test_the_lock_holds_nothing_else():
    pins = read_pins('lock.txt')
    wanted = {'efficientnet-lite-pytorch', 'opencv-python-headless'}
    for name in ('runtime', 'mminstall', 'deploy', 'tests', 'tiles'):
        lines = (REPOSITORY / 'requirements' / f'{name}.txt').read_text().splitlines()
        wanted |= {
            canonicalize_name(Requirement(line).name)
            for line in lines
            if line and not line.startswith('#')
        }
    reached, ahead = set(), sorted(wanted)
    while ahead:
        package = ahead.pop()
        if package not in reached:
            reached.add(package)
            ahead += [canonicalize_name(item.name) for item in needed_by(package)]
    assert set(pins) - reached == set()


@pytest.mark.parametrize('name', ['runtime', 'mminstall', 'deploy', 'tests', 'tiles'])
def test_the_lock_fits_what_the_package_asks_for(name):
    pins = read_pins('lock.txt', 'build.txt')
    for line in (REPOSITORY / 'requirements' / f'{name}.txt').read_text().splitlines():
        if line and not line.startswith('#'):
            assert is_met(Requirement(line), pins), line


def test_the_matching_pair_of_torch_and_torchvision_is_pinned():
    pins = read_pins('lock.txt')
    assert (pins['torch'], pins['torchvision'], pins['mmcv']) == ('2.8.0', '0.23.0', '2.1.0')


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(script):
    assert os.access(script, os.X_OK), f'chmod +x {script}'
    subprocess.run(['bash', '-n', str(script)], check=True)
    text = script.read_text()
    assert text.startswith('#!/usr/bin/env bash\n')
    assert 'set -e' in text


def test_mim_finds_the_configs_and_tools():
    folder = REPOSITORY / 'mmdsym' / '.mim'
    for name in ('configs', 'tools', 'model-index.yml'):
        assert (folder / name).resolve() == REPOSITORY / name, 'run pip install -e .'


def test_every_model_of_the_index_has_its_config_and_every_main_config_its_entry():
    index = yaml.safe_load((REPOSITORY / 'model-index.yml').read_text())
    listed = [model['Config'] for model in index['Models']]
    assert len(set(listed)) == len(listed)
    there = {f'configs/{path.name}' for path in REPOSITORY.glob('configs/dsym_*.py')}
    # Neither a demo nor a template is a model that somebody could look for.
    assert set(listed) == there - {'configs/dsym_demo.py', 'configs/dsym_custom.py'}


class FakeMachine:
    """A copy of the scripts, a stand-in for Python, and a place for the environment."""

    def __init__(self, folder: Path):
        self.repository = folder / 'repository'
        self.venv = folder / 'venv'
        self.log = folder / 'log'
        self.programs = folder / 'programs'
        for name in ('tools', 'requirements'):
            shutil.copytree(REPOSITORY / name, self.repository / name)
        shutil.copytree(REPOSITORY / '.ci', self.repository / '.ci')
        (self.repository / 'mmdsym').mkdir()
        for name in ('setup.py', 'mmdsym/version.py'):
            shutil.copy(REPOSITORY / name, self.repository / name)
        self.programs.mkdir()
        self.make_program('python3.11', FAKE_PYTHON)
        self.set_free_space(100)

    def make_program(self, name: str, text: str) -> None:
        path = self.programs / name
        path.write_text(text)
        path.chmod(0o755)

    def set_free_space(self, gigabytes: int) -> None:
        self.make_program(
            'df', f'#!/bin/sh\necho header\necho disk 0 0 {gigabytes * 1024 * 1024} 0% /\n'
        )

    def run(self, script: str = 'tools/setup_environment.sh', *arguments: str, fail: str = ''):
        """Returns the finished process and the calls of Python that it made."""
        self.log.write_text('')
        result = subprocess.run(
            ['bash', str(self.repository / script), *arguments],
            capture_output=True,
            text=True,
            env={
                'PATH': f'{self.programs}:{os.environ["PATH"]}',
                'HOME': str(self.programs),
                'MMDSYM_VENV': str(self.venv),
                'FAKE_LOG': str(self.log),
                'FAKE_FAIL': fail,
            },
        )
        return result, self.log.read_text().splitlines()

    def change_lock(self) -> None:
        with (self.repository / 'requirements' / 'lock.txt').open('a') as file:
            file.write('# changed\n')


@pytest.fixture
def machine(tmp_path) -> FakeMachine:
    return FakeMachine(tmp_path)


def count(calls: list[str], text: str) -> int:
    return sum(text in call for call in calls)


def test_the_first_run_installs_and_the_second_does_nothing(machine):
    result, calls = machine.run()
    assert result.returncode == 0, result.stderr
    assert count(calls, '-m venv') == 1
    # Build tools, torch, the rest, and the package itself.
    assert count(calls, '-m pip install') == 4
    assert all('--no-deps' in call for call in calls if 'pip install' in call)
    result, calls = machine.run()
    assert result.returncode == 0, result.stderr
    assert calls == []


@pytest.mark.parametrize('step', ['*build.txt*', '*retries*-r /dev*', '* -e .'])
def test_after_an_interruption_it_goes_on(machine, step):
    result, _ = machine.run(fail=step)
    assert result.returncode != 0
    (machine.venv / 'kept').touch()
    result, calls = machine.run()
    assert result.returncode == 0, result.stderr
    assert count(calls, '-m venv') == 0
    assert (machine.venv / 'kept').exists()
    assert machine.run()[1] == []


def test_an_environment_that_was_hardly_begun_is_made_anew(machine):
    assert machine.run(fail='-m venv*')[0].returncode == 2
    result, calls = machine.run()
    assert result.returncode == 0, result.stderr
    assert count(calls, '-m venv') == 1


def test_a_changed_lock_rebuilds(machine):
    machine.run()
    (machine.venv / 'stale').touch()
    machine.change_lock()
    result, calls = machine.run()
    assert result.returncode == 0, result.stderr
    assert count(calls, '-m venv') == 1
    assert not (machine.venv / 'stale').exists()
    assert machine.run()[1] == []


def test_a_changed_setup_is_linked_again_without_a_rebuild(machine):
    machine.run()
    with (machine.repository / 'setup.py').open('a') as file:
        file.write('# changed\n')
    calls = machine.run()[1]
    assert len(calls) == 1
    assert '-e .' in calls[0]


def test_a_broken_environment_is_rebuilt(machine):
    machine.run()
    (machine.venv / 'bin' / 'python').write_text('#!/bin/sh\nexit 1\n')
    result, calls = machine.run()
    assert result.returncode == 0, result.stderr
    assert count(calls, '-m venv') == 1


def test_a_foreign_folder_is_refused_and_untouched(machine):
    machine.venv.mkdir()
    (machine.venv / 'thesis.txt').write_text('years of work')
    result, calls = machine.run()
    assert result.returncode == 2
    assert calls == []
    assert str(machine.venv) in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert (machine.venv / 'thesis.txt').read_text() == 'years of work'


def test_a_full_disk_is_told_before_anything_is_loaded(machine):
    machine.set_free_space(3)
    result, calls = machine.run()
    assert result.returncode == 2
    assert '3 GB' in result.stderr
    assert calls == []


def test_two_at_once_take_turns(machine):
    machine.make_program('python3.11', FAKE_PYTHON + 'if [[ $* == *venv* ]]; then sleep 1; fi\n')
    machine.log.write_text('')
    environment = {
        'PATH': f'{machine.programs}:{os.environ["PATH"]}',
        'MMDSYM_VENV': str(machine.venv),
        'FAKE_LOG': str(machine.log),
    }
    script = str(machine.repository / 'tools' / 'setup_environment.sh')
    both = [subprocess.Popen(['bash', script], env=environment) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert count(machine.log.read_text().splitlines(), '-m venv') == 1


@pytest.mark.parametrize('script', ['tools/run_tests.sh', '.ci/run'])
def test_the_test_command_lints_and_tests(machine, script):
    result, calls = machine.run(script)
    assert result.returncode == 0, result.stderr
    assert calls[-4:] == [
        '-m ruff check .',
        '-m ruff format --check .',
        '-m pytest tests/deployment',
        '-m pytest --ignore=tests/deployment',
    ]


def test_the_test_command_hands_arguments_to_pytest(machine):
    _, calls = machine.run('tools/run_tests.sh', 'tests/test_versions.py', '-k', 'torch')
    assert calls[-1] == '-m pytest tests/test_versions.py -k torch'


@pytest.mark.parametrize(
    'step',
    [
        '-m ruff check*',
        '-m ruff format*',
        '-m pytest tests/deployment',
        '-m pytest --ignore*',
    ],
)
def test_the_test_command_fails_when_a_step_fails(machine, step):
    assert machine.run('tools/run_tests.sh', fail=step)[0].returncode != 0


def test_the_quick_start_goes_step_by_step(machine):
    result, calls = machine.run('tools/quick_start.sh')
    assert result.returncode == 0, result.stderr
    steps = [call.split()[0] for call in calls[-3:]]
    assert steps == ['tools/prepare_dataset.py', 'tools/train.py', 'tools/draw_detections.py']
    # An interrupted run goes on by itself; with --resume it would overlook a changed config.
    assert '--resume' not in calls[-2]


def test_the_quick_start_stops_where_a_step_fails(machine):
    result, calls = machine.run('tools/quick_start.sh', fail='tools/train.py*')
    assert result.returncode != 0
    assert calls[-1].startswith('tools/train.py')


def load_mender():
    spec = importlib.util.spec_from_file_location(
        'mend_packages', REPOSITORY / 'tools' / 'mend_packages.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def site_packages(tmp_path) -> Path:
    info = tmp_path / 'part-1.0.dist-info'
    info.mkdir()
    (tmp_path / 'part.py').write_text('x = 1\n')
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: part\nVersion: 1.0\n')
    (info / 'INSTALLER').write_text('pip\n')
    (info / 'RECORD').write_text(
        'part.py,sha256=unread,6\n__pycache__/part.cpython-311.pyc,,\n'
        'part-1.0.dist-info/METADATA,,\npart-1.0.dist-info/INSTALLER,,\n'
        'part-1.0.dist-info/RECORD,,\n'
    )
    return tmp_path


def test_a_whole_package_is_left_alone(site_packages):
    assert load_mender().mend(site_packages) == []
    assert (site_packages / 'part-1.0.dist-info' / 'RECORD').exists()


@pytest.mark.parametrize(
    'missing',
    ['part.py', *(f'part-1.0.dist-info/{n}' for n in ('RECORD', 'INSTALLER', 'METADATA'))],
)
def test_a_package_with_a_missing_file_is_forgotten(site_packages, missing):
    (site_packages / missing).unlink()
    assert load_mender().mend(site_packages) == ['part-1.0.dist-info']
    assert not (site_packages / 'part-1.0.dist-info').exists()


def test_a_package_with_a_cut_file_is_forgotten(site_packages):
    (site_packages / 'part.py').write_text('x =')
    assert load_mender().mend(site_packages) == ['part-1.0.dist-info']


def test_this_environment_is_whole():
    mender = load_mender()
    packages = ('torch', 'numpy', 'mmdet', 'timm')
    for distribution in map(metadata.distribution, packages):
        if distribution._path.is_symlink():
            continue  # Another environment's, without its commands: tools/check_versions.sh.
        assert mender.is_whole(distribution, distribution._path), distribution.name
