"""Semi-supervised defect detection for MMDetection.

Importing the package checks the versions of what it stands on, lets torch >= 2.6 read the
checkpoints that MMEngine writes, and creates the child registries. The components themselves are
imported by their registry when the first ``type='mmdsym.X'`` is looked up, so that light tools
start quickly.
"""

from .checkpoints import allow_mmengine_checkpoints
from .version import __version__
from .versions import check_versions

check_versions()
allow_mmengine_checkpoints()

# After the version checks, so that a wrong MMEngine is named before it fails in its own words.
from . import registry  # noqa: E402

__all__ = ['__version__', 'registry']
