"""Files at fault where a tool expects a sound one: one sentence, status 2, no traceback."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from preparation_data import BOX, coco_json, make_coco_one, save_image, write

BAD: dict[str, Callable[[Path], object]] = {
    'missing': lambda path: None,
    'broken link': lambda path: path.symlink_to(path.with_name('nowhere')),
    'folder': lambda path: path.mkdir(),
    'empty file': lambda path: path.write_bytes(b''),
    'empty object': lambda path: path.write_text('{}'),
    'list': lambda path: path.write_text('[]'),
    'number': lambda path: path.write_text('3'),
    'text': lambda path: path.write_text('"text"'),
    'null': lambda path: path.write_text('null'),
    'object of wrong types': lambda path: path.write_text(
        '{"images": 3, "annotations": "x", "categories": null, "proposals": [], "info": 4}'
    ),
    'lists of wrong types': lambda path: path.write_text(
        '{"images": [1, null, {}], "annotations": [[]], "categories": [{"id": 1}]}'
    ),
    'deep': lambda path: path.write_text('[' * 100_000),
    'rubbish': lambda path: path.write_bytes(bytes(range(256)) * 40),
    'half a file': lambda path: path.write_text('{"images": [{"file_name": "a.p'),
}

# Each takes BAD, the file at fault, and what is sound: a RUN, a data set OLD, a SOURCE, a LIST of
# images, IMAGES. The suffix of the file follows.
CALLS: dict[str, tuple[str, str]] = {
    'source': ('prepare_dataset BAD --name x --out OUT', '.zip'),
    'labels that come back': ('prepare_dataset BAD --merge OLD --name x --out OUT', '.json'),
    'data set to merge into': ('prepare_dataset LIST --merge BAD --name x --out OUT', ''),
    'suggestions': ('prepare_dataset LIST --merge OLD --suggested BAD --name x --out OUT', '.json'),
    'list of a split': ('prepare_dataset SOURCE --split BAD BAD --name x --out OUT', '.txt'),
    'unlabelled images': ('prepare_dataset SOURCE --unlabelled-dir BAD --name x --out OUT', ''),
    'known-good images': ('prepare_dataset SOURCE --known-good-dir BAD --name x --out OUT', ''),
    'run to ask': ('suggest_labels BAD --ann LIST --images IMAGES --out OUT', '.pth'),
    'its config': ('suggest_labels RUN --config BAD --ann LIST --images IMAGES --out OUT', '.py'),
    'images to rank': ('suggest_labels RUN --ann BAD --images IMAGES --out OUT', '.json'),
    'labelled ones': (
        'suggest_labels RUN --ann LIST --labelled BAD --images IMAGES --out OUT',
        '.json',
    ),
    'their folder': ('suggest_labels RUN --ann LIST --images BAD --out OUT', ''),
    'run to export': ('export_detector BAD --out OUT', '.pth'),
    'config to export': ('export_detector RUN --config BAD --out OUT', '.py'),
    'run to draw': ('draw_detections BAD --out OUT.png', '.pth'),
    'config to draw': ('draw_detections BAD RUN/iter_1.pth --out OUT.png', '.py'),
    'run for tiles': ('predict_tiled BAD --tile 64 --out OUT.json', '.pth'),
    'truth of tiles': ('predict_tiled RUN --tile 64 --ann BAD --out OUT.json', '.json'),
    'images for tiles': ('predict_tiled RUN --tile 64 --images BAD --out OUT.json', ''),
    'model': ('infer_onnx BAD IMAGES --out OUT.json', '.onnx'),
    'images to infer': ('infer_onnx LIST BAD --out OUT.json', ''),
}
CONFIG = """
model = dict(type='RetinaNet')
val_dataloader = dict(dataset=dict(type='CocoDataset', ann_file='', pipeline=[]))
"""


@pytest.fixture(scope='module')
def sound(tmp_path_factory) -> dict[str, Path]:
    """What a call needs besides the file at fault. The run has no weights: it is never used."""
    root = tmp_path_factory.mktemp('sound')
    write(root / 'run/config.py', CONFIG)
    meta = dict(dataset_meta=dict(classes=('dent',)))
    torch.save(dict(state_dict={}, meta=meta), root / 'run/iter_1.pth')
    save_image(root / 'images/part3.jpg')
    listed = write(root / 'list.json', coco_json([('part3.jpg', [('dent', BOX)])], ['dent']))
    source = make_coco_one(root / 'source')
    script = str(REPOSITORY / 'tools/prepare_dataset.py')
    with pytest.MonkeyPatch.context() as patch:
        arguments = [script, str(source), '--name', 'old', '--out', str(root)]
        patch.setattr(sys, 'argv', [*arguments, '--fractions', '1', '--seeds', '0'])
        runpy.run_path(script, run_name='__main__')
    return {
        'RUN': root / 'run',
        'IMAGES': root / 'images',
        'LIST': listed,
        'SOURCE': source,
        'OLD': root / 'old',
    }


@pytest.mark.parametrize('fault', BAD)
@pytest.mark.parametrize('call', CALLS)
def test_a_file_at_fault_is_told_in_a_sentence(sound, tmp_path, monkeypatch, capsys, call, fault):
    template, suffix = CALLS[call]
    bad = tmp_path / f'bad{suffix}'
    BAD[fault](bad)
    before = sorted(tmp_path.rglob('*'))
    tool, *words = template.split()
    for word, path in {**sound, 'BAD': bad, 'OUT': tmp_path / 'out'}.items():
        words = [own.replace(word, str(path)) if own.startswith(word) else own for own in words]
    script = str(REPOSITORY / f'tools/{tool}.py')
    if tool == 'infer_onnx':
        # Apart: a process that has loaded ONNX Runtime has crashed in a later training.
        command = [sys.executable, script, *words]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        code, told = run.returncode, run.stderr.strip().splitlines()
    else:
        monkeypatch.setattr(sys, 'argv', [script, *words])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(script, run_name='__main__')
        code, told = stop.value.code, capsys.readouterr().err.strip().splitlines()
    assert code == 2 and told[-1].startswith('error: '), told
    assert 'Traceback' not in ''.join(told) and len(told[-1]) < 600
    left = [path for path in sorted(tmp_path.rglob('*')) if path not in before]
    assert not [path for path in left if path != tmp_path / 'out']
