"""What a config says once is filled in wherever it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmdsym.awkward_names import list_awkward_prompts
from mmdsym.config_checks import check_prompts, require_images, square_image_size
from mmdsym.datasets import read_classes
from mmdsym.errors import UserError
from mmdsym.images_per_step import follow_images_per_step, images_per_device, processes_of
from mmdsym.stages import StageSchedule
from mmdsym.training_length import follow_iterations

PLACEHOLDERS = ('data_root', 'split', 'image_size', 'prompts', 'background_prompts')
"""Top-level settings that strings of the config may contain, or be, in braces."""

OPTIONAL = ('prompts', 'background_prompts')
"""Those that may be left out or empty: ``None`` then stands for them."""


def complete_config(cfg: Config) -> Config:
    """Returns a copy in which data paths, classes and stage names are filled in and checked.

    - the :data:`PLACEHOLDERS`, such as ``{data_root}``, become the top-level settings of that name;
    - the name of a part in braces becomes the folder of its model, see ``mmdsym/pipeline``;
    - every box head, and whatever else says ``num_classes=None``, gets the number of classes of the
      training data (mmdetection #9706);
    - the schedule is stretched to ``iterations``, see :mod:`mmdsym.training_length`;
    - batches, learning rate and lengths follow from ``images_per_step``, see
      :mod:`mmdsym.images_per_step`;
    - ``begin`` and ``end`` of a scheduler may name a stage: its first, its last iteration;
    - where ``auto_scale_lr`` is enabled, the training data say how large a batch of the stages is.

    Completing a completed config changes nothing.

    Raises:
        UserError: A file of the data or a stage does not exist, or has no image, or what the user
            wrote fits no data; the message names it and the cure, before anything is built.
    """
    list_awkward_prompts(cfg)
    square_image_size(cfg)
    settings = {name: cfg.get(name) for name in PLACEHOLDERS}
    if settings['data_root']:
        # Configs join it with what follows; who types a folder does not think of the slash.
        cfg.data_root = settings['data_root'] = f'{settings["data_root"]}'.rstrip('/') + '/'
    cfg = _filled(cfg, settings)
    _require_data(cfg)
    require_images(cfg)
    if cfg.get('parts'):
        # Imported late: most configs have none.
        from mmdsym.pipeline.parts import fix_configs, folders_of_named_parts

        folders = folders_of_named_parts(cfg)
        cfg = _filled(fix_configs(cfg), folders) if folders else cfg
    _fill_classes(cfg)
    follow_iterations(cfg)
    follow_images_per_step(cfg, processes_of(cfg))
    _fill_stage_borders(cfg)
    _fill_batch_size(cfg)
    return cfg


def _filled(cfg: Config, settings: dict[str, object]) -> Config:
    return Config(_fill(cfg._cfg_dict.to_dict(), settings), filename=cfg.filename)


def _fill(value: object, settings: dict[str, object]) -> object:
    if isinstance(value, dict):
        return {key: _fill(entry, settings) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_fill(entry, settings) for entry in value)
    if not isinstance(value, str):
        return value
    for name, setting in settings.items():
        place = f'{{{name}}}'
        if value == place and name in OPTIONAL:
            return setting or None
        if place in value:
            if setting is None:
                raise UserError(
                    f"the config uses {place} in '{value}' but does not set {name}: add "
                    f"{name} = '...' to it."
                )
            if value == place:
                # The command line makes lists of what transforms want as tuples.
                return tuple(setting) if isinstance(setting, list) else setting
            value = value.replace(place, str(setting))
    return value


def _annotation_files(cfg: Config) -> Iterator[Path]:
    for part in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'custom_hooks'):
        for entry in walk(cfg.get(part) or {}):
            if isinstance(entry.get('ann_file'), str):
                yield Path(entry.get('data_root') or '') / entry['ann_file']


def walk(value: object) -> Iterator[ConfigDict]:
    """Yields every dict nested in ``value``, itself included, outer ones first."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for entry in value:
            yield from walk(entry)


def _require_data(cfg: Config) -> None:
    root = cfg.get('data_root')
    if root is not None and not Path(root).is_dir():
        raise UserError(
            f'data_root {root} does not exist: prepare the data with tools/prepare_dataset.py '
            '(see README.md), or set data_root in the config.'
        )
    for path in _annotation_files(cfg):
        if not path.is_file():
            raise UserError(
                f'{path} does not exist: prepare the data with this label fraction and seed '
                '(tools/prepare_dataset.py), or correct split in the config.'
            )


def _fill_classes(cfg: Config) -> None:
    path = next(_annotation_files(cfg), None)
    if path is None:
        return
    classes = read_classes(path)
    check_prompts(cfg, classes)
    for entry in walk(cfg.model):
        if 'num_classes' in entry and entry['num_classes'] is None:
            entry['num_classes'] = len(classes)
        heads = entry.get('bbox_head') or []
        for head in heads if isinstance(heads, (list, tuple)) else [heads]:
            head['num_classes'] = len(classes)


def _fill_stage_borders(cfg: Config) -> None:
    stages = (cfg.get('train_cfg') or {}).get('stages')
    if stages is None:
        return
    schedule = StageSchedule(stages)
    schedulers = cfg.get('param_scheduler') or []
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        for border in ('begin', 'end'):
            if isinstance(scheduler.get(border), str):
                scheduler[border] = getattr(schedule.named(scheduler[border]), border)
        if scheduler.get('end', schedule.max_iters) > schedule.max_iters:
            raise UserError(
                f'{scheduler["type"]} ends at iteration {scheduler["end"]}, behind the last stage '
                f"({schedule.max_iters}): let end name a stage, such as '"
                f"{schedule.stages[-1].name}'."
            )


def _fill_batch_size(cfg: Config) -> None:
    """Tells MMEngine, which multiplies it by the processes, what to scale the learning rate by."""
    staged = (cfg.get('train_cfg') or {}).get('stages') is not None
    if staged and (cfg.get('auto_scale_lr') or {}).get('enable'):
        cfg.train_dataloader.batch_size = images_per_device(cfg)
