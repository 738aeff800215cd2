"""Checks the versions of the packages that mmdsym stands on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from packaging.specifiers import SpecifierSet

from mmdsym.errors import UserError


@dataclass(frozen=True)
class Requirement:
    """A package, the versions of it that work, and why the others do not.

    Args:
        package: Name of the distribution, as pip knows it.
        versions: Version specifier, e.g. ``'>=2.1.0,<2.2.0'``; empty for any version.
        reason: Completes the sentence "mmdsym needs ... because ...".
        fork: Another distribution that imports under the same name and works as well, if any.
        fork_versions: Which versions of it do; docs/versions.md says with which it was tried.
    """

    package: str
    versions: str
    reason: str
    fork: str = ''
    fork_versions: str = ''

    @property
    def pip_name(self) -> str:
        """What to hand to ``pip install``, e.g. ``'mmcv>=2.1.0,<2.2.0'``."""
        return f'{self.package}{self.versions}'


REQUIREMENTS = (
    Requirement('torch', '>=2.1', 'older ones lack functions that the training loops use'),
    Requirement('torchvision', '', 'it must match the torch that is installed'),
    Requirement(
        'mmengine',
        '>=0.10.7,<0.11',
        'the training loops build on its runner',
        fork='onedl-mmengine',
        fork_versions='>=0.10.12,<0.11',
    ),
    Requirement(
        'mmcv',
        '>=2.1.0,<2.2.0',
        'MMDetection 3.3 refuses every other one',
        fork='onedl-mmcv',
        fork_versions='>=2.3.6,<2.4',
    ),
    Requirement(
        'mmdet',
        '>=3.3.0,<3.4',
        'the detectors are built from its parts',
        fork='onedl-mmdetection',
        fork_versions='>=3.5.1,<3.6',
    ),
    Requirement('diffusers', '>=0.42', 'older ones overlook the dtype of pipelines'),
    Requirement('open_clip_torch', '>=3.3', 'older ones load weights in another way'),
)
LEAST_PYTHON = (3, 11)
"""As in setup.py, for those who run a clone without installing it."""


def check_versions(
    requirements: tuple[Requirement, ...] = REQUIREMENTS,
    find_version: Callable[[str], str] = metadata.version,
    python: tuple[int, ...] = sys.version_info[:2],
) -> None:
    """Makes sure that Python, and every required package, has a version that works.

    Args:
        requirements: What to check, in the order in which faults are told.
        find_version: Gives the version of an installed distribution, or raises
            :class:`importlib.metadata.PackageNotFoundError`.
        python: The version of Python.

    Raises:
        UserError: One sentence that names the package, the version found and the command that
            installs a fitting one.
    """
    if tuple(python) < LEAST_PYTHON:
        least, found = ('.'.join(map(str, version[:2])) for version in (LEAST_PYTHON, python))
        raise UserError(
            f'this is Python {found} but mmdsym needs {least} or later because its packages do: '
            f'make an environment with python{least}'
        )
    for requirement in requirements:
        _check(requirement, find_version)


def installed_version(
    package: str, find_version: Callable[[str], str] = metadata.version
) -> str | None:
    """Returns the version of a package, or of its fork with the fork's name before it.

    Args:
        package: Name under which the distribution is required.
        find_version: As for :func:`check_versions`.

    Returns:
        Such as ``'3.3.0'`` or ``'onedl-mmdetection 3.5.1'``; ``None`` if neither is installed.
    """
    if _is_installed(package, find_version):
        return find_version(package)
    forks = [requirement.fork for requirement in REQUIREMENTS if requirement.package == package]
    for fork in filter(None, forks):
        if _is_installed(fork, find_version):
            return f'{fork} {find_version(fork)}'
    return None


def _check(requirement: Requirement, find_version: Callable[[str], str]) -> None:
    has_fork = bool(requirement.fork) and _is_installed(requirement.fork, find_version)
    if _is_installed(requirement.package, find_version):
        if has_fork:
            raise UserError(
                f'{requirement.package} and {requirement.fork} are both installed and overwrite '
                f"each other's files: run pip uninstall {requirement.package} {requirement.fork} "
                'and then install one of them'
            )
        name, versions, reason = requirement.package, requirement.versions, requirement.reason
    elif has_fork:
        name, versions, reason = requirement.fork, requirement.fork_versions, 'no other was tried'
    else:
        raise UserError(_describe_missing(requirement, find_version))
    version = find_version(name)
    # Local labels (2.8.0+cu128) and pre-releases of a fitting version count as fitting.
    if not SpecifierSet(versions).contains(version.split('+')[0], prereleases=True):
        raise UserError(
            f'{name} {version} is installed but mmdsym needs {name}{versions} because {reason}: '
            f"run pip install '{name}{versions}'"
        )


def _describe_missing(requirement: Requirement, find_version: Callable[[str], str]) -> str:
    if requirement.package == 'mmcv' and _is_installed('mmcv-lite', find_version):
        return (
            'mmcv-lite is installed, which lacks the compiled operators of mmcv: run '
            f"pip uninstall mmcv-lite and then pip install '{requirement.pip_name}'"
        )
    return (
        f'{requirement.package} is not installed but mmdsym needs it: '
        f"run pip install '{requirement.pip_name}'"
    )


def _is_installed(package: str, find_version: Callable[[str], str]) -> bool:
    try:
        find_version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
