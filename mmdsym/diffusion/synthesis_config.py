"""Where a config says what to synthesise."""

from __future__ import annotations

from mmengine.config import Config, ConfigDict

from mmdsym.config import walk
from mmdsym.errors import UserError


def find_synthesis(cfg: Config) -> ConfigDict:
    """Returns the config of the synthetic data set that a training config contains.

    Raises:
        UserError: There is none.
    """
    for entry in walk(cfg.get('train_dataloader') or {}):
        if str(entry.get('type', '')).split('.')[-1] == 'DiffusionSynthesisDataset':
            return entry
    raise UserError(
        f'{cfg.filename} has no synthetic images: use a config with a source of type '
        'mmdsym.DiffusionSynthesisDataset, such as '
        'configs/baselines/supervised_synthetic_neu_40pct.py.'
    )
