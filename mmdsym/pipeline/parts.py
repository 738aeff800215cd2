"""Parts that a config declares: models that are trained before the detector."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from mmdsym.errors import UserError

from .contents import Contents
from .description import DETERMINING, describe, digest_of
from .exports import find_export

_REQUIRED = ('config', 'folder')
_KNOWN = (*_REQUIRED, 'options')


@dataclass(frozen=True)
class Part:
    """A model to be trained, and where it belongs.

    Attributes:
        name: Its name in ``parts``, and in braces where its folder is meant.
        title: What it is, in a few words.
        config: The completed config that trains it, into its own folders.
        key: Changes when, and only when, the labels, images or settings that it follows from do.
        folder: Where the model is, or will be.
        family: What the folders of this part have in common, whatever their key.
    """

    name: str
    title: str
    config: Config
    key: str
    folder: Path
    family: Path

    @property
    def training_folder(self) -> Path:
        """Logs and checkpoints of its training."""
        return self.folder.with_name(f'{self.folder.name}.training')

    @property
    def max_iters(self) -> int:
        """Iterations of its training."""
        return int(self.config.train_cfg.max_iters)


def declared_parts(cfg: Config) -> list[Part]:
    """Returns the parts that a config has to train for itself, in the order of declaration.

    A part that none of the settings which determine the run names any more is left out, whatever
    helper variables still speak of it, and so is one that is declared as the folder of a model,
    since the user answers for it.

    Args:
        cfg: A completed config, or one of which only the parts are not filled in.

    Raises:
        UserError: A declaration is wrong, or names a config or data that do not exist.
    """
    return _parts_named_in(cfg, DETERMINING)


def folders_of_named_parts(cfg: Config) -> dict[str, str]:
    """Returns part name to the folder of its model, for all whose names stand in braces.

    Args:
        cfg: A config of which only the parts are not filled in; of a completed one none are left.

    Raises:
        UserError: See :func:`declared_parts`.
    """
    everywhere = [key for key in cfg if key != 'parts']
    texts = list(_strings({key: cfg[key] for key in everywhere}))
    names = [name for name in cfg.parts if any(f'{{{name}}}' in text for text in texts)]
    if not names:
        return {}
    trained = {part.name: str(part.folder) for part in _parts_named_in(cfg, everywhere)}
    return {name: trained.get(name) or cfg.parts[name] for name in names}


def _parts_named_in(cfg: Config, keys: Iterable[str]) -> list[Part]:
    contents = Contents()
    named = set(_strings({key: cfg[key] for key in keys if key in cfg}))
    parts = []
    for name, declaration in (cfg.get('parts') or {}).items():
        if isinstance(declaration, str):
            continue
        if _is_named(name, declaration, named):
            _check(name, declaration)
            parts.append(_build(name, declaration, cfg, contents))
    return parts


def fix_configs(cfg: Config) -> Config:
    """Lets parts name their configs absolutely, so that a copy of ``cfg`` elsewhere finds them."""
    for declaration in cfg.parts.values():
        if isinstance(declaration, Mapping) and isinstance(declaration.get('config'), str):
            path = declaration['config']
            if not Path(path).is_absolute():
                declaration['config'] = str(find_part_config(path, cfg.filename))
    return cfg


def find_part_config(path: str, leaf: str | None) -> Path:
    """Finds the config of a part.

    Args:
        path: Absolute, or relative to the folder of the config that declares it, to one above it,
            or to the configs that come with mmdsym; the first that is there.
        leaf: The declaring config's file.

    Raises:
        UserError: There is none.
    """
    package = Path(__file__).resolve().parents[1]
    folders = [*(Path(leaf).resolve().parents if leaf else ())]
    folders += [package.parent / 'configs', package / '.mim' / 'configs']
    for folder in folders:
        if (folder / path).is_file():
            return folder / path
    raise UserError(
        f'there is no config {path} for a part: correct it in parts of {leaf or "the config"}.'
    )


def _check(name: str, declaration: object) -> None:
    example = f"parts = dict({name}=dict(config='...', folder='...'))"
    if not isinstance(declaration, Mapping):
        raise UserError(f'part {name} is {declaration!r}: write {example}, or a folder.')
    for key in _REQUIRED:
        if not isinstance(declaration.get(key), str):
            raise UserError(f'part {name} has no {key}: write {example}.')
    for key in declaration:
        if key not in _KNOWN:
            raise UserError(f"part {name} has an unknown '{key}': known are {', '.join(_KNOWN)}.")


def _is_named(name: str, declaration: Mapping, strings: set[str]) -> bool:
    """Says whether a config uses a part: by its place, or, once completed, by its folder."""
    place = f'{{{name}}}'
    folder = declaration.get('folder') if isinstance(declaration, Mapping) else None
    return any(place in text or (folder and text.startswith(f'{folder}-')) for text in strings)


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _strings(entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _strings(entry)


def _build(name: str, declaration: Mapping, cfg: Config, contents: Contents) -> Part:
    config = _training_config(declaration, cfg)
    export, hook = find_export(config)
    family = Path(declaration['folder'])
    key = digest_of(describe(config, contents))
    folder = family.with_name(f'{family.name}-{key}')
    part = Part(name, export.title, config, key, folder, family)
    hook[export.argument] = str(folder)
    config.work_dir = str(part.training_folder)
    return part


def _training_config(declaration: Mapping, cfg: Config) -> Config:
    """Returns the part's completed config, on the data of the config that declares it."""
    # Imported late: completing a config asks for its parts.
    from mmdsym.config import complete_config

    config = Config.fromfile(find_part_config(declaration['config'], cfg.filename))
    shared = {name: cfg[name] for name in ('data_root', 'split') if cfg.get(name) is not None}
    options = dict(declaration.get('options') or {})
    # None leaves what the part's own config says.
    stated = {name: value for name, value in options.items() if value is not None}
    config.merge_from_dict({**shared, **stated})
    config = complete_config(config)
    checkpoints = config.setdefault('default_hooks', {}).setdefault('checkpoint', {})
    # With one alone, a process killed while it writes the next leaves none.
    checkpoints['max_keep_ckpts'] = max(2, checkpoints.get('max_keep_ckpts', 2))
    _seed_iterations(config)
    return config


def _seed_iterations(config: Config) -> None:
    """Makes a part that was interrupted the same as one that was not, whatever its config says."""
    hooks = config.get('custom_hooks') or []
    if not any(str(hook.get('type')).split('.')[-1] == 'IterationSeedHook' for hook in hooks):
        config.custom_hooks = [dict(type='mmdsym.IterationSeedHook'), *hooks]
