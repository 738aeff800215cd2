"""Collects everything that a machine without internet needs to install mmdsym.

    python tools/make_offline_bundle.py --python 3.12 --out bundle

The folder holds the wheels pinned in requirements/lock.txt for the Python of the other machine,
mmcv's source (its operators are compiled there, for the torch that is there), the weights of the
default backbone, and mmdsym itself with its configs and tools. torch and torchvision are left
out: the other machine has them, built for its own GPU. Copy the folder there and run

    bash bundle/install_offline.sh bundle
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mmdsym.errors import UserError, exit_on_user_error
from mmdsym.version import __version__

ROOT = Path(__file__).resolve().parents[1]
# Comes with the torch of the other machine, in the versions that it was built and tested with.
TORCH_SIDE = re.compile(r'torch|torchvision|triton|nvidia-.*|sympy|mpmath|networkx|jinja2')
# Compiled there.
FROM_SOURCE = 'mmcv'
INSTALLER = ('install_offline.sh', 'restrict_mmcv_ops.py')
# The glibc versions for which platform tags exist; a wheel for an older one runs on a newer one.
OLDEST_GLIBC = 5
LEGACY_TAGS = {5: 'manylinux1', 12: 'manylinux2010', 17: 'manylinux2014'}


@dataclass(frozen=True)
class Target:
    """The machine that the bundle is for.

    Args:
        python: Its version of CPython, e.g. ``'3.12'``.
        platform: The newest wheel platform that it runs, e.g. ``'manylinux_2_28_x86_64'``.
    """

    python: str
    platform: str

    @property
    def platforms(self) -> list[str]:
        """All platform tags that the machine runs, newest first.

        Raises:
            UserError: The platform is not named as wheels name it.
        """
        match = re.fullmatch(r'manylinux_2_(\d+)_(\w+)', self.platform)
        if not match:
            raise UserError(
                f'the platform {self.platform} is not known: name it like manylinux_2_28_x86_64'
            )
        newest, machine = int(match[1]), match[2]
        tags = []
        for glibc in range(newest, OLDEST_GLIBC - 1, -1):
            tags.append(f'manylinux_2_{glibc}_{machine}')
            if glibc in LEGACY_TAGS:
                tags.append(f'{LEGACY_TAGS[glibc]}_{machine}')
        return tags

    @property
    def pip_options(self) -> list[str]:
        """Makes pip choose for that machine instead of for this one."""
        abi = 'cp' + self.python.replace('.', '')
        options = ['--only-binary=:all:', '--implementation=cp', f'--python-version={self.python}']
        options += [f'--abi={name}' for name in (abi, 'abi3', 'none')]
        return options + [f'--platform={name}' for name in self.platforms]


def pip(*arguments: str | Path) -> subprocess.CompletedProcess:
    """Runs pip of this Python and keeps what it says."""
    command = [sys.executable, '-m', 'pip', '--disable-pip-version-check', *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def read_pins(path: Path, target: Target) -> list[str]:
    """Reads the pins that hold on the other machine, e.g. ``['addict==2.4.0', ...]``."""
    machine = target.platform.split('_', 3)[-1]
    environment = {
        'python_version': target.python,
        'python_full_version': f'{target.python}.0',
        'platform_system': 'Linux',
        'platform_machine': machine,
        'sys_platform': 'linux',
    }
    pins = []
    for line in path.read_text(encoding='utf-8').splitlines():
        if not line.split('#')[0].strip():
            continue
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            pins.append(f'{requirement.name}{requirement.specifier}')
    return pins


def bundled_pins(target: Target) -> list[str]:
    """Reads the pins of everything that goes into the bundle as a wheel."""
    pins = read_pins(ROOT / 'requirements' / 'lock.txt', target)
    left_out = re.compile(f'({TORCH_SIDE.pattern}|{FROM_SOURCE})==.*', re.IGNORECASE)
    return [pin for pin in pins if not left_out.fullmatch(pin)]


def replace_pins(pins: list[str], replacements: list[str]) -> list[str]:
    """Replaces pins by those given for the same package.

    Raises:
        UserError: A replacement is no pin, or its package is not in the bundle.
    """
    by_name = {canonicalize_name(pin.split('==')[0]): pin for pin in pins}
    for replacement in replacements:
        name = canonicalize_name(replacement.split('==')[0])
        if '==' not in replacement or name not in by_name:
            raise UserError(
                f'--pin {replacement} fits no package of the bundle: name one of '
                'requirements/lock.txt as NAME==VERSION'
            )
        by_name[name] = replacement
    return list(by_name.values())


def download_wheels(pins: list[str], target: Target, folder: Path) -> None:
    """Downloads a wheel of every pin, or builds it where only source exists.

    Raises:
        UserError: A pin has no wheel for the target and cannot be built for it here.
    """
    options = ['--no-deps', '--dest', folder, *target.pip_options]
    if pip('download', *options, *pins).returncode == 0:
        return
    # pip names only the first package without a wheel, so each is tried by itself.
    for pin in pins:
        if pip('download', *options, pin).returncode != 0:
            build_pure_wheel(pin, target, folder)


def build_pure_wheel(pin: str, target: Target, folder: Path) -> None:
    """Builds a wheel of a package that exists as source only and contains no compiled code."""
    with tempfile.TemporaryDirectory() as place:
        result = pip(
            'wheel',
            *('--no-deps', '--no-build-isolation', '--no-binary', pin.split('==')[0]),
            *('--wheel-dir', place, pin),
        )
        wheels = list(Path(place).glob('*-none-any.whl'))
        if result.returncode != 0 or not wheels:
            raise UserError(
                f'{pin} has no wheel for Python {target.python} on {target.platform}: choose a '
                'version that has one with --pin NAME==VERSION'
            )
        shutil.copy2(wheels[0], folder)


def download_mmcv_source(target: Target, folder: Path) -> None:
    """Downloads the source archive of the pinned mmcv."""
    (pin,) = (
        pin
        for pin in read_pins(ROOT / 'requirements' / 'lock.txt', target)
        if pin.startswith(f'{FROM_SOURCE}==')
    )
    result = pip(
        'download',
        *('--no-deps', '--no-build-isolation', '--no-binary', FROM_SOURCE),
        *('--dest', folder, pin),
    )
    if result.returncode != 0:
        raise UserError(f'the source of {pin} could not be downloaded: {last_line(result.stderr)}')


def build_own_wheel(folder: Path) -> None:
    """Builds mmdsym's wheel from a copy, so that neither old build files nor links get into it."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / 'mmdsym'
        copy.mkdir()
        for name in ('mmdsym', 'configs', 'tools', 'requirements'):
            shutil.copytree(
                ROOT / name, copy / name, ignore=shutil.ignore_patterns('.mim', '__pycache__')
            )
        for path in ROOT.iterdir():
            if path.is_file() and path.suffix in ('.py', '.toml', '.in', '.yml', '.md', ''):
                shutil.copy2(path, copy)
        result = pip('wheel', '--no-deps', '--no-build-isolation', '--wheel-dir', folder, copy)
    if result.returncode != 0:
        raise UserError(f'the wheel of mmdsym could not be built: {last_line(result.stderr)}')


def last_line(text: str) -> str:
    """Returns the line of a program's output that most likely names the reason."""
    lines = [line for line in text.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if 'ERROR' in line), lines[-1] if lines else '')


def check_resolution(pins: list[str], target: Target, folder: Path) -> None:
    """Makes sure that pip, without any index, finds each pin for the target in the folder.

    Raises:
        UserError: Something is missing.
    """
    with tempfile.TemporaryDirectory() as place:
        result = pip(
            'install',
            *('--dry-run', '--no-deps', '--no-index', '--find-links', folder),
            *('--target', place, *target.pip_options, *pins),
        )
    if result.returncode != 0:
        raise UserError(f'the bundle would not install: {last_line(result.stderr)}')


def write_manifest(folder: Path) -> None:
    """Writes the SHA-256 of every file, in the format that ``sha256sum --check`` reads."""
    lines = []
    for path in sorted(folder.rglob('*')):
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            lines.append(f'{digest}  {path.relative_to(folder).as_posix()}\n')
    (folder / 'manifest.sha256').write_text(''.join(lines), encoding='utf-8')


def make_bundle(target: Target, folder: Path, replacements: list[str]) -> None:
    """Fills an empty folder with the bundle.

    Raises:
        UserError: Something cannot be had for the target; the message names it.
    """
    pins = replace_pins(bundled_pins(target), replacements)
    build_pins = read_pins(ROOT / 'requirements' / 'build.txt', target)
    wheels = folder / 'wheels'
    wheels.mkdir()
    print(f'downloading {len(pins) + len(build_pins)} wheels for Python {target.python} ...')
    download_wheels(build_pins + pins, target, wheels)
    print('downloading the source of mmcv ...')
    download_mmcv_source(target, folder)
    print('building the wheel of mmdsym ...')
    build_own_wheel(wheels)
    pins.append(f'mmdsym=={__version__}')
    check_resolution(build_pins + pins, target, wheels)
    (folder / 'build.txt').write_text('\n'.join(build_pins) + '\n', encoding='utf-8')
    (folder / 'pins.txt').write_text('\n'.join(pins) + '\n', encoding='utf-8')
    description = {'mmdsym': __version__, 'python': target.python, 'platform': target.platform}
    (folder / 'bundle.json').write_text(json.dumps(description, indent=2) + '\n', encoding='utf-8')
    for name in INSTALLER:
        shutil.copy2(ROOT / 'tools' / name, folder)
    write_manifest(folder)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--python', required=True, metavar='X.Y', help='Python of the other machine, e.g. 3.12'
    )
    parser.add_argument('--out', required=True, type=Path, help='new folder for the bundle')
    parser.add_argument(
        '--platform',
        default=f'manylinux_2_28_{platform.machine()}',
        help='newest wheel platform that the other machine runs (default: %(default)s)',
    )
    parser.add_argument(
        '--pin',
        action='append',
        default=[],
        metavar='NAME==VERSION',
        help='takes another version than the lock file, e.g. for a Python that it does not cover',
    )
    return parser.parse_args()


@exit_on_user_error
def main() -> None:
    """Makes the bundle in a folder beside its place and moves it there when it is complete."""
    arguments = parse_arguments()
    if not re.fullmatch(r'3\.\d+', arguments.python):
        raise UserError(f'--python {arguments.python} is no version: write it like 3.12')
    if arguments.out.exists():
        raise UserError(f'{arguments.out} exists: remove it, or name another folder with --out')
    target = Target(arguments.python, arguments.platform)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.out.parent, prefix='.bundle-') as place:
        folder = Path(place) / 'bundle'
        folder.mkdir()
        make_bundle(target, folder, arguments.pin)
        folder.rename(arguments.out)
    size = sum(path.stat().st_size for path in arguments.out.rglob('*') if path.is_file())
    print(
        f'{arguments.out} is complete ({size / 1e6:.0f} MB): copy it to the other machine and run\n'
        f'    bash {arguments.out.name}/install_offline.sh {arguments.out.name}'
    )


if __name__ == '__main__':
    main()
