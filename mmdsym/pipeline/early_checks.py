"""What can be said to be wrong with a config before its parts are made, which takes long."""

from __future__ import annotations

from copy import deepcopy

from mmengine.config import Config
from mmengine.registry import HOOKS, init_default_scope

from mmdsym.config import walk
from mmdsym.diffusion.layout_config import parse_layout
from mmdsym.registry import MODELS
from mmdsym.stages import StageSchedule

_SYNTHESIS = 'DiffusionSynthesisDataset'


def check_before_parts(cfg: Config) -> None:
    """Builds what needs no part: the detector, the hooks, the stages, the layout of defects.

    Args:
        cfg: A completed config.

    Raises:
        UserError: Something of it is wrong.
    """
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    stages = (cfg.get('train_cfg') or {}).get('stages')
    if stages:
        _check_modes(cfg, StageSchedule(stages))
    for hook in cfg.get('custom_hooks') or []:
        if isinstance(hook, dict):
            HOOKS.build(deepcopy(hook))
    for entry in walk(cfg.get('train_dataloader') or {}):
        if str(entry.get('type', '')).split('.')[-1] == _SYNTHESIS:
            parse_layout(entry.get('layout'))
    MODELS.build(deepcopy(cfg.model))


def _check_modes(cfg: Config, schedule: StageSchedule) -> None:
    for hook in walk(cfg.get('custom_hooks') or []):
        if str(hook.get('type', '')).split('.')[-1] == 'CLIPPseudoLabelFilterHook':
            for stage in hook.get('schedule') or {}:
                schedule.named(stage)
