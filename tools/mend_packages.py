"""Finds packages whose installation was interrupted, so that pip installs them again.

pip takes a package for installed as soon as its metadata are there, also when it was stopped
before the last file was written. The metadata of such packages are removed here; the next
``pip install`` then writes all of their files anew. Run by ``tools/setup_environment.sh`` with
the Python of the environment it makes.
"""

from __future__ import annotations

import shutil
import sysconfig
from importlib.metadata import Distribution
from pathlib import Path


def is_whole(distribution: Distribution, metadata_folder: Path) -> bool:
    """Tells whether every file that pip recorded is there in its recorded size."""
    # pip writes INSTALLER after the files and scripts, just before it completes the record.
    if not all((metadata_folder / name).is_file() for name in ('METADATA', 'RECORD', 'INSTALLER')):
        return False
    return all(
        file.locate().is_file() and file.size in (None, file.locate().stat().st_size)
        for file in distribution.files or ()
        # Compiled by Python itself whenever they are missing.
        if file.suffix != '.pyc'
    )


def mend(site_packages: Path) -> list[str]:
    """Removes the metadata of packages that are not whole.

    Args:
        site_packages: Folder of an environment that nobody else is changing meanwhile.

    Returns:
        Names of the metadata folders that were removed, sorted.
    """
    removed = []
    for folder in sorted(site_packages.glob('*.dist-info')):
        if not is_whole(Distribution.at(folder), folder):
            shutil.rmtree(folder)
            removed.append(folder.name)
    return removed


def main() -> None:
    """Mends the environment of the Python that runs this."""
    for place in {sysconfig.get_path('purelib'), sysconfig.get_path('platlib')}:
        for name in mend(Path(place)):
            print(f'{name} was not completely installed and will be installed again')


if __name__ == '__main__':
    main()
