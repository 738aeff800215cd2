"""Checkpoints that are none, or not of this run: one sentence, and nothing is run or written."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from test_checkpoint_faults import make_runner

from mmdsym.errors import UserError


class Evil:
    """Would write a file if a checkpoint could run code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp('whole') / 'run'
    make_runner(folder, max_iters=2).train()
    return torch.load(folder / 'iter_2.pth', weights_only=True)


def changed(**changes):
    """A checkpoint with other entries; ``None`` leaves one out."""

    def make(path: Path, whole: dict) -> None:
        content = {**whole, **changes}
        torch.save({key: value for key, value in content.items() if value is not None}, path)

    return make


def with_weight(value: torch.Tensor):
    def make(path: Path, whole: dict) -> None:
        torch.save({**whole, 'state_dict': {**whole['state_dict'], 'linear.weight': value}}, path)

    return make


UNREADABLE = 'cannot be read as a checkpoint'
NO_WEIGHTS = 'holds no weights'
NO_STATE = 'no state from which a run could go on'
CASES = {
    'empty file': (lambda path, whole: path.write_bytes(b''), UNREADABLE),
    'zeros': (lambda path, whole: path.write_bytes(bytes(5000)), UNREADABLE),
    'text': (lambda path, whole: path.write_text('no checkpoint'), UNREADABLE),
    'json': (lambda path, whole: path.write_text(json.dumps({'state_dict': {}})), UNREADABLE),
    'other zip': (
        lambda path, whole: zipfile.ZipFile(path, 'w').writestr('a.txt', 'text'),
        UNREADABLE,
    ),
    'plain pickle': (lambda path, whole: path.write_bytes(pickle.dumps({1: 2})), 'bad.pth'),
    'code': (
        lambda path, whole: torch.save({**whole, 'x': Evil(path.with_name('evil'))}, path),
        UNREADABLE,
    ),
    'pickled code': (
        lambda path, whole: path.write_bytes(pickle.dumps(Evil(path.with_name('evil')))),
        UNREADABLE,
    ),
    'list': (lambda path, whole: torch.save([1, 2], path), NO_WEIGHTS),
    'tensor': (lambda path, whole: torch.save(torch.zeros(3), path), NO_WEIGHTS),
    'no weights': (changed(state_dict={}), NO_WEIGHTS),
    'weights that are a list': (changed(state_dict=[1, 2]), NO_WEIGHTS),
    'weights that are no tensors': (
        changed(state_dict={'linear.weight': 3, 4: 'x'}),
        'belongs to another detector',
    ),
    'another shape': (with_weight(torch.zeros(7, 7)), 'belongs to another detector'),
    'NaN in a weight': (
        with_weight(torch.tensor([[1.0, float('nan'), 2.0]])),
        'weights that are no finite numbers',
    ),
    'infinity in a weight': (
        with_weight(torch.tensor([[1.0, float('inf'), 2.0]])),
        'weights that are no finite numbers',
    ),
    'weights alone': (changed(meta=None, message_hub=None, optimizer=None), NO_STATE),
    'no log': (changed(message_hub=None), NO_STATE),
    'damaged log': (changed(message_hub=[1]), NO_STATE),
    'no iteration': (changed(meta={'epoch': 0}), NO_STATE),
    'damaged optimiser': (changed(optimizer={'state': {}, 'param_groups': []}), NO_STATE),
}


@pytest.mark.parametrize('case', CASES)
def test_a_checkpoint_at_fault_is_named_in_one_sentence(whole, tmp_path, case):
    make, message = CASES[case]
    path = tmp_path / 'given' / 'bad.pth'
    path.parent.mkdir()
    make(path, whole)
    runner = make_runner(tmp_path / 'run', 4, resume=True, load_from=str(path))
    with pytest.raises(UserError, match=message) as caught:
        runner.train()
    text = str(caught.value)
    assert str(path) in text and '\n' not in text
    assert [entry.name for entry in path.parent.iterdir()] == ['bad.pth']
    assert not list((tmp_path / 'run').glob('*.pth'))
