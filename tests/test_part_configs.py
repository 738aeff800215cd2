"""The configs that train parts: alone they do what a whole run does with them."""

from pathlib import Path

import pytest
from conftest import REPOSITORY
from mmengine.config import Config
from whole_run_data import write_configs

from mmdsym.config import complete_config
from mmdsym.pipeline.parts import declared_parts

CONFIGS = REPOSITORY / 'configs'
PART_CONFIGS = [*CONFIGS.glob('diffusion/*.py'), *CONFIGS.glob('clip/adapt_*.py')]


def hook_types(cfg: Config) -> list[str]:
    return [hook.type for hook in cfg.custom_hooks]


@pytest.mark.parametrize('path', PART_CONFIGS, ids=lambda path: path.stem)
def test_each_config_of_a_part_says_itself_that_iterations_are_seeded(path: Path):
    assert hook_types(Config.fromfile(path)).count('mmdsym.IterationSeedHook') == 1


@pytest.fixture
def leaf(tiny_data: Path, tmp_path: Path) -> Path:
    return write_configs(tmp_path, tiny_data)


def test_a_whole_run_seeds_iterations_once_and_where_the_config_does_not_itself(leaf: Path):
    clip, diffusion = (leaf.with_name(f'tiny_{name}.py') for name in ('clip', 'diffusion'))
    declared, silent = (hook_types(Config.fromfile(path)) for path in (clip, diffusion))
    assert 'mmdsym.IterationSeedHook' not in silent
    parts = {part.name: part for part in declared_parts(complete_config(Config.fromfile(leaf)))}
    assert hook_types(parts['clip'].config) == declared
    assert hook_types(parts['diffusion'].config) == ['mmdsym.IterationSeedHook', *silent]


def test_the_key_is_the_same_whoever_names_the_hook(leaf: Path):
    def key() -> str:
        return declared_parts(complete_config(Config.fromfile(leaf)))[0].key

    silent = key()
    config = leaf.with_name('tiny_diffusion.py')
    config.write_text(
        config.read_text().replace(
            'custom_hooks = [', "custom_hooks = [dict(type='mmdsym.IterationSeedHook'), "
        )
    )
    assert key() == silent
