"""Packages mmdsym the OpenMMLab way: ``pip install -e .`` works, and ``mim`` finds the configs."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
# What `mim train|test|download mmdsym` looks for inside the installed package.
MIM_FILES = ('configs', 'tools', 'model-index.yml')


class BuildWithMimFiles(build_py):
    """Builds the package and puts the files of the MIM extension into ``mmdsym/.mim``.

    An editable install links them in the source tree, so that edits count at once; a wheel gets
    copies in its build folder, and the source tree stays as it is.
    """

    def run(self) -> None:
        """Builds as usual, then adds the MIM files."""
        super().run()
        if self.editable_mode:
            link_mim_files(ROOT / 'mmdsym' / '.mim')
        else:
            copy_mim_files(Path(self.build_lib) / 'mmdsym' / '.mim')


def link_mim_files(folder: Path) -> None:
    """Links the MIM files into ``folder``, relatively, so that the tree may be moved."""
    folder.mkdir(exist_ok=True)
    for name in MIM_FILES:
        link = folder / name
        if link.is_symlink():
            link.unlink()
        elif link.exists():
            raise SystemExit(f'error: {link} is no link of mmdsym: move it away, then install')
        link.symlink_to(os.path.relpath(ROOT / name, folder))


def copy_mim_files(folder: Path) -> None:
    """Copies the MIM files into ``folder`` of the build, replacing those of an older build."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in MIM_FILES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy2(source, folder / name)


def read_requirements(name: str) -> list[str]:
    """Reads ``requirements/<name>.txt`` without its comments."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    stripped = (line.split('#')[0].strip() for line in lines)
    return [line for line in stripped if line]


def read_version() -> str:
    """Reads ``__version__`` without importing the package."""
    text = (ROOT / 'mmdsym' / 'version.py').read_text(encoding='utf-8')
    return re.search(r"^__version__ = '(.+)'$", text, re.MULTILINE).group(1)


def read_long_description() -> str:
    """Reads the README, which a partial copy of the tree may lack."""
    readme = ROOT / 'README.md'
    return readme.read_text(encoding='utf-8') if readme.is_file() else ''


setup(
    name='mmdsym',
    version=read_version(),
    description='Semi-supervised defect detection for MMDetection',
    long_description=read_long_description(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    keywords='computer vision, object detection, semi-supervised learning, defect detection',
    packages=find_packages(include=('mmdsym', 'mmdsym.*')),
    include_package_data=True,
    python_requires='>=3.11',
    install_requires=read_requirements('runtime'),
    extras_require={
        'deploy': read_requirements('deploy'),
        'fuzz': read_requirements('fuzz'),
        'mim': read_requirements('mminstall'),
        'tests': read_requirements('tests'),
        'tiles': read_requirements('tiles'),
    },
    cmdclass={'build_py': BuildWithMimFiles},
    zip_safe=False,
)
