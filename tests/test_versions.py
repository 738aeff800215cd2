"""Wrong or missing packages are named in one sentence, and registered names resolve."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata

import pytest
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

import mmdsym
from mmdsym.errors import UserError
from mmdsym.versions import LEAST_PYTHON, REQUIREMENTS, check_versions, installed_version

GOOD = {
    'torch': '2.8.0+cu128',
    'torchvision': '0.23.0',
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmdet': '3.3.0',
    'diffusers': '0.42.1',
    'open_clip_torch': '3.3.0',
}


def check(**changes: str | None) -> None:
    changes = {k if k in GOOD else k.replace('_', '-'): v for k, v in changes.items()}
    installed = {**GOOD, **changes}

    def find_version(package: str) -> str:
        if installed.get(package) is None:
            raise metadata.PackageNotFoundError(package)
        return installed[package]

    check_versions(find_version=find_version)


def test_the_tested_versions_pass():
    check()
    check_versions()


@pytest.mark.parametrize('torch', ['2.1.0', '2.1.2+cu118', '2.6.0a0+git1', '2.13.0', '3.0'])
def test_torch_from_2_1_passes(torch):
    check(torch=torch)


@pytest.mark.parametrize(
    ('package', 'version'),
    [
        ('torch', '2.0.1'),
        ('mmengine', '0.9.1'),
        ('mmcv', '2.2.0'),
        ('mmcv', '1.7.2'),
        ('mmdet', '2.28.0'),
        ('mmdet', '3.4.0'),
        ('diffusers', '0.39.0'),
        ('open_clip_torch', '2.32.0'),
    ],
)
def test_a_wrong_version_is_named_with_its_cure(package, version):
    with pytest.raises(UserError) as caught:
        check(**{package: version})
    message = str(caught.value)
    assert f'{package} {version}' in message
    assert f"pip install '{package}>" in message
    assert '\n' not in message


@pytest.mark.parametrize('package', [requirement.package for requirement in REQUIREMENTS])
def test_a_missing_package_is_named_with_its_cure(package):
    with pytest.raises(UserError, match=f'{package} is not installed.*pip install'):
        check(**{package: None})


FORKS = {
    'mmengine': ('onedl-mmengine', '0.10.12'),
    'mmcv': ('onedl-mmcv', '2.3.6'),
    'mmdet': ('onedl-mmdetection', '3.5.1'),
}


def check_forks(**changes: str | None) -> None:
    forks = {fork.replace('-', '_'): version for fork, version in FORKS.values()}
    check(**{**dict.fromkeys(FORKS), **forks, **changes})


def test_the_forks_pass_in_place_of_the_originals():
    check_forks()
    with pytest.raises(UserError, match='mmdet is not installed'):
        check_forks(onedl_mmdetection=None)


@pytest.mark.parametrize(('package', 'version'), [('mmcv', '2.2.0'), ('mmdet', '3.4.0')])
def test_a_fork_that_was_not_tried_is_named_with_its_cure(package, version):
    fork = FORKS[package][0]
    with pytest.raises(UserError, match=f"{fork} {version} is installed.*install '{fork}>="):
        check_forks(**{fork.replace('-', '_'): version})


def test_a_fork_beside_the_original_is_refused():
    with pytest.raises(UserError, match='mmcv and onedl-mmcv are both installed.*uninstall'):
        check(onedl_mmcv='2.3.6')


def test_a_version_is_told_with_the_name_of_the_fork():
    def find_version(package: str) -> str:
        if package != 'onedl-mmdetection':
            raise metadata.PackageNotFoundError(package)
        return '3.5.1'

    assert installed_version('mmdet', find_version) == 'onedl-mmdetection 3.5.1'
    assert installed_version('mmcv', find_version) is None
    assert installed_version('timm') == metadata.version('timm')


@pytest.mark.parametrize('python', [(3, 10), (3, 9), (2, 7)])
def test_an_old_python_is_named_with_its_cure(python):
    with pytest.raises(UserError, match=r'Python \d\.\d+ but mmdsym needs 3\.11.*python3\.11'):
        check_versions(find_version=GOOD.__getitem__, python=python)


def specifiers(*names: str) -> dict[str, str]:
    """Package to what requirements/NAME.txt asks of its version."""
    lines = '\n'.join((REPOSITORY / f'requirements/{n}.txt').read_text() for n in names).split('\n')
    wanted = [Requirement(line) for line in lines if line and not line.startswith('#')]
    return {entry.name: str(entry.specifier) for entry in wanted}


def test_all_places_state_the_same_least_versions():
    asked = specifiers('runtime', 'mminstall')
    for requirement in REQUIREMENTS:
        stated = set(requirement.versions.split(',')) - {''}
        assert stated == set(asked[requirement.package].split(',')) - {''}, requirement.package
    least = '.'.join(map(str, LEAST_PYTHON))
    assert f"python_requires='>={least}'" in (REPOSITORY / 'setup.py').read_text()
    assert (
        f'target-version = "py{least.replace(".", "")}"'
        in (REPOSITORY / 'pyproject.toml').read_text()
    )
    assert f'Python {least}' in (REPOSITORY / 'README.md').read_text()
    table = (REPOSITORY / 'docs/versions.md').read_text().split('## Least versions')[1]
    rows = dict(re.findall(r'^\| (\w+) \| ([\d.]+) \|', table, re.MULTILINE))
    assert rows.pop('Python') == least
    assert rows == {
        name: re.search(r'>=([\d.]+)', specifier)[1]
        for name, specifier in asked.items()
        if '>=' in specifier
    }


def test_mmcv_lite_is_recognised():
    with pytest.raises(UserError, match='pip uninstall mmcv-lite'):
        check(mmcv=None, mmcv_lite='2.1.0')


@given(
    package=st.sampled_from(sorted(GOOD)),
    version=st.from_regex(r'[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{1,2}', fullmatch=True),
)
def test_any_version_passes_or_is_named(package, version):
    try:
        check(**{package: version})
    except UserError as error:
        assert f'{package} {version}' in str(error)


def test_the_version_is_stated():
    assert mmdsym.__version__ == metadata.version('mmdsym')


def test_names_resolve_from_an_mmdetection_config():
    # A process of its own: elsewhere another test may have imported the components already.
    script = """
from mmengine.config import Config
from mmengine.registry import init_default_scope
cfg = Config.fromstring('''
custom_imports = dict(imports=['mmdsym'], allow_failed_imports=False)
default_scope = 'mmdet'
''', '.py')
init_default_scope(cfg.default_scope)
from mmdet.registry import MODELS
assert MODELS.get('mmdsym.DSYMDetector').__module__.startswith('mmdsym.models')
assert MODELS.get('mmdsym.TimmBackbone').__module__.startswith('mmdsym.models')
assert MODELS.get('ATSS').__module__.startswith('mmdet.')
assert MODELS.get('mmdsym.NoSuchThing') is None
"""
    result = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
