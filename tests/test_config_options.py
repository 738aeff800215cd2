"""Values of --cfg-options: lists as MMEngine reads them, paths and sentences as they were typed."""

from __future__ import annotations

import argparse
import re

import pytest
from conftest import REPOSITORY
from mmengine.config import Config, DictAction

from mmdsym.command_line import add_config_options, read_config
from mmdsym.config_options import parse_value
from mmdsym.errors import UserError


def told(*pairs: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    return parser.parse_args(['--cfg-options', *pairs])


@pytest.mark.parametrize(
    'text',
    [
        *('5', '1e-3', 'true', 'None', 'ATSS', '', '1,2,3', 'a,b', 'a,', 'dent, spot', '1, 2'),
        *('(320,320)', '[a, b, c]', '[(1, 2, 3), [a, b], c]', 'x,(1, 2)', '(1,)', '[]', '()'),
        *('"[1,2]"', "['a','b']", "'a','b'"),
    ],
)
def test_numbers_words_and_lists_are_those_of_mmengine(text):
    assert repr(parse_value(text)) == repr(DictAction._parse_iterable(text))


@pytest.mark.parametrize(
    'text',
    [
        *('data/my parts/', 'data/parts, new/', 'data/a,b', './a,b', 'C:\\parts,new', 'my parts'),
        *('a round dent, seen from above', 'data/parts (2)/', '[old] parts/', '(a) and (b)'),
    ],
)
def test_paths_and_sentences_stay_as_they_were_typed(text):
    assert parse_value(text) == text
    assert parse_value(f'"{text}"') == text


def test_paths_in_brackets_are_several():
    assert parse_value('[data/my parts/, data/b/]') == ['data/my parts/', 'data/b/']
    assert parse_value(str(['my parts', 'b'])) == ['my parts', 'b']


def test_a_config_gets_what_was_typed(tmp_path):
    path = tmp_path / 'plain.py'
    path.write_text("data_root = ''\nsplit = ''\nimage_size = (1, 1)\n")
    args = told('data_root=data/my parts, new/', 'split=a=b', 'image_size=(64,64)')
    args.config = str(path)
    cfg = read_config(args)
    assert (cfg.data_root, cfg.split) == ('data/my parts, new/', 'a=b')
    assert cfg.image_size == (64, 64)
    assert Config.fromstring(cfg.pretty_text, '.py').data_root == cfg.data_root


@pytest.mark.parametrize(
    ('pairs', 'message'),
    [
        (['data_root=data/my', 'parts/'], "has 'parts/', which sets nothing: write KEY=VALUE, in"),
        (['image_size=(320,320'], "has '(320,320' with a bracket too many"),
    ],
)
def test_what_cannot_be_read_is_named(pairs, message):
    with pytest.raises(UserError, match=re.escape(message)):
        told(*pairs)


def test_all_tools_read_them_alike():
    sources = [*(REPOSITORY / 'tools').glob('*.py'), *(REPOSITORY / 'mmdsym').rglob('*.py')]
    naming = [path.name for path in sources if 'DictAction' in path.read_text(encoding='utf-8')]
    assert naming == ['config_options.py']
