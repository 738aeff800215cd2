"""Evaluation with all eight orientations of an image, for surfaces without an upright position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmengine.config import Config

from mmdsym.errors import UserError

_META_KEYS = ('homography_matrix', 'scale_factor', 'ori_shape', 'img_shape', 'img_id', 'img_path')


def see_all_orientations(cfg: Config) -> None:
    """Lets a test look at each image mirrored and turned, and fuse what is found.

    Args:
        cfg: Changed in place: the pipeline of its test data, and its hooks.

    Raises:
        UserError: The pipeline does not end in ``PackDetInputs``.
    """
    dataset = cfg.test_dataloader.dataset
    dataset.pipeline = _pipeline_of_views(dataset.pipeline)
    hook = dict(type='PrepareTTAHook', tta_cfg=dict(type='mmdsym.FusedViews'))
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]


def _pipeline_of_views(pipeline: Sequence[Mapping]) -> list[dict]:
    *steps, pack = (dict(step) for step in pipeline)
    if pack['type'] != 'PackDetInputs':
        raise UserError(
            f'the test pipeline ends in {pack["type"]}, not in PackDetInputs: evaluate this config '
            'without --tta.'
        )
    pack['meta_keys'] = tuple(dict.fromkeys([*pack.get('meta_keys', ()), *_META_KEYS]))
    flips = [dict(type='RandomFlip', prob=0.0)] + [
        dict(type='RandomFlip', prob=1.0, direction=direction)
        for direction in ('horizontal', 'vertical', 'diagonal')
    ]
    swaps = [dict(type='mmdsym.RandomTranspose', prob=float(swap)) for swap in (0, 1)]
    return [*steps, dict(type='TestTimeAug', transforms=[flips, swaps, [pack]])]
