"""What is written as json: read by strict parsers, and refused as a whole where it cannot be."""

from __future__ import annotations

import json
from math import inf, nan

import pytest

from mmdsym.atomic_file import as_json, write_json


def test_numbers_that_json_does_not_know_become_null(tmp_path):
    content = {'AP50': {'dent': nan, 'spot': 0.5}, 'seen': [inf, (-inf, 1)], 'name': 'NaN'}
    write_json(tmp_path / 'found.json', content)
    found = json.loads((tmp_path / 'found.json').read_bytes(), parse_constant=pytest.fail)
    expected = {'AP50': {'dent': None, 'spot': 0.5}, 'seen': [None, [None, 1]], 'name': 'NaN'}
    assert found == expected
    # What was given stays as it was.
    assert content['seen'][0] == inf


def test_other_letters_are_escaped_unless_asked_for():
    assert as_json('ü').isascii() and json.loads(as_json('ü')) == 'ü'
    assert as_json('ü', ascii_only=False) == '"ü"\n'
