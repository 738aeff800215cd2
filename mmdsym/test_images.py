"""Some images of a config's test data set, to try a detector on."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from mmdet.registry import DATASETS
from mmengine import Config
from mmengine.registry import init_default_scope

from mmdsym.errors import UserError


def paths_of_test_images(config: Config, count: int) -> list[Path]:
    """Returns images of the test data set, evenly spread over all of them.

    Args:
        config: With ``test_dataloader``.
        count: How many at most.

    Returns:
        Those that are there; none where the annotations are gone.
    """
    init_default_scope(config.get('default_scope') or 'mmdet')
    try:
        # pycocotools reports on stdout what nobody asked for.
        with contextlib.redirect_stdout(io.StringIO()):
            data_set = DATASETS.build(config.test_dataloader.dataset)
    except (UserError, FileNotFoundError, NotADirectoryError):
        return []
    count = min(count, len(data_set))
    chosen = [(2 * place + 1) * len(data_set) // (2 * count) for place in range(count)]
    paths = [Path(data_set.get_data_info(index)['img_path']) for index in chosen]
    return [path for path in paths if path.is_file()]
