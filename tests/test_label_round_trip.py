"""From a run to suggestions, through the hands of an annotator, back into the data."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CLASSES, REPOSITORY, call_tool, draw_image, write_coco
from mmengine.config import Config
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import init_default_scope
from PIL import Image

from mmdsym.config import complete_config
from mmdsym.datasets.preparation.boxes import edges_to_yolo

SIZE = 64
SPLIT = 'annotations/100pct_seed0'


def load_tool(name: str):
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / f'tools/{name}.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


@pytest.fixture(scope='module')
def truth(tmp_path_factory) -> tuple[Path, dict[str, list]]:
    """A prepared data set, and what nobody but the annotator knows of its unlabelled images."""
    root = tmp_path_factory.mktemp('round_trip')
    generator = np.random.default_rng(0)
    images, annotations, hidden = [], [], {}
    for index in range(16):
        pixels, boxes = draw_image(generator, SIZE)
        folder, name = ('source', 'more')[index >= 10], f'{index:02d}.png'
        (root / folder).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(root / folder / name)
        if folder == 'more':
            hidden[f'unlabelled/{name}'] = boxes
            continue
        images.append(dict(id=index, file_name=name, width=SIZE, height=SIZE))
        for label, *box in boxes:
            row = dict(id=len(annotations), image_id=index, category_id=label + 1, bbox=box)
            annotations.append(row)
    # The same image again: labelling it twice would be a waste.
    shutil.copy(root / 'more/10.png', root / 'more/copy.png')
    hidden['unlabelled/copy.png'] = hidden['unlabelled/10.png']
    write_coco(root / 'source/all.json', images, annotations)
    load_tool('prepare_dataset').main(
        [str(root / 'source'), '--name', 'old', '--out', str(root / 'data'), '--seeds', '0',
         '--fractions', '1.0', '--unlabelled-dir', str(root / 'more')]
    )  # fmt: skip
    return root / 'data/old', hidden


def make_run(data: Path, folder: Path, pair: bool) -> Path:
    """An untrained run, as training leaves one: plain, or a pair of two that differ."""
    name = 'dsym_neu_40pct.py' if pair else 'baselines/supervised_neu_40pct.py'
    cfg = Config.fromfile(REPOSITORY / 'configs' / name)
    options = {'data_root': f'{data}/', 'split': '100pct_seed0', 'image_size': (96, 96)}
    cfg.merge_from_dict(options)
    # Parts of the pair's config that need files of their own have nothing to do here.
    cfg.custom_hooks = []
    cfg.train_dataloader = Config.fromfile(
        REPOSITORY / 'configs/baselines/supervised_neu_40pct.py'
    ).train_dataloader
    detector = cfg.model.detector if pair else cfg.model
    detector.backbone.pretrained = None
    detector.test_cfg.update(score_thr=0.0, max_per_img=6)
    cfg = complete_config(cfg)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    state = MMENGINE_MODELS.build(cfg.model).state_dict()
    if pair:
        state['keep_thresholds'].fill_(0.5)
        state['drop_thresholds'].fill_(0.35)
    folder.mkdir(parents=True)
    torch.save({'state_dict': state, 'meta': {}}, folder / 'iter_1.pth')
    cfg.dump(folder / 'config.py')
    return folder


@pytest.fixture(scope='module')
def suggested(truth, tmp_path_factory) -> Path:
    """What the tool suggests for the data set with a plain run."""
    folder = tmp_path_factory.mktemp('suggested')
    run = make_run(truth[0], folder / 'run', pair=False)
    with pytest.MonkeyPatch.context() as patch:
        arguments = ('--ann', truth[0] / SPLIT / 'unlabelled.json', '--out', folder / 'out')
        more = ('--count', 4, '--score-threshold', 0.001)
        call_tool(patch, 'suggest_labels.py', run, *arguments, *more)
    return folder / 'out'


def test_untouched_pre_labels_are_not_taken_for_labels(truth, suggested, tmp_path):
    data, hidden = truth
    untouched = json.loads((suggested / 'coco.json').read_text())
    del untouched['info']
    export = tmp_path / 'back.json'
    export.write_text(json.dumps(untouched))
    main = load_tool('prepare_dataset').main
    arguments = [str(export), '--merge', str(data), '--out', str(tmp_path)]
    arguments += ['--suggested', str(suggested), '--name']
    with pytest.raises(SystemExit):
        main([*arguments, 'new'])
    assert not (tmp_path / 'new').exists()
    # One of them is corrected.
    changed = untouched['images'][0]
    rows = [r for r in untouched['annotations'] if r['image_id'] != changed['id']]
    rows += [dict(id=0, image_id=changed['id'], category_id=1, bbox=[3, 4, 20, 21])]
    export.write_text(json.dumps(untouched | {'annotations': rows}))
    for name, more in (('new', []), ('all', ['--untouched', 'accept'])):
        main([*arguments, name, *more])
        content = json.loads((tmp_path / name / 'annotations/train.json').read_text())
        origins = {i['file_name']: i['label_source'] for i in content['images']}
        assert origins[changed['file_name']] == 'corrected'
        rest = {image['file_name'] for image in untouched['images'][1:]}
        assert {origins.get(image) for image in rest} == ({'accepted'} if more else {None})
        unlabelled = json.loads((tmp_path / name / SPLIT / 'unlabelled.json').read_text())
        waiting = {i['file_name'] for i in unlabelled['images']}
        assert waiting == set(hidden) - {changed['file_name']} - (rest if more else set())
        card = (tmp_path / name / 'dataset_card.md').read_text()
        assert f'{len(rest)} images came back as proposed' in card


def correct_coco(folder: Path, hidden: dict, out: Path) -> Path:
    content = json.loads((folder / 'coco.json').read_text())
    del content['info']
    content['annotations'] = [
        dict(id=10 * image['id'] + n, image_id=image['id'], category_id=label + 1, bbox=box)
        for image in content['images']
        for n, (label, *box) in enumerate(hidden[image['file_name']])
    ]
    (out / 'corrected.json').write_text(json.dumps(content))
    return out / 'corrected.json'


def correct_yolo(folder: Path, hidden: dict, out: Path) -> Path:
    shutil.copytree(folder / 'yolo', out / 'yolo')
    for name, boxes in hidden.items():
        path = out / 'yolo/labels' / Path(name).with_suffix('.txt')
        if path.is_file():
            edges = [(label, (x, y, x + w, y + h)) for label, x, y, w, h in boxes]
            lines = [(label, *edges_to_yolo(box, SIZE, SIZE)) for label, box in edges]
            path.write_text('\n'.join(' '.join(map(str, line)) for line in lines))
    return out / 'yolo'


def correct_label_studio(folder: Path, hidden: dict, out: Path) -> Path:
    tasks = json.loads((folder / 'label_studio.json').read_text())
    for task in tasks:
        result = []
        for label, x, y, width, height in hidden[task['data']['mmdsym_file']]:
            value = dict(x=x, y=y, width=width, height=height)
            value = {key: 100 * side / SIZE for key, side in value.items()}
            value['rectanglelabels'] = [CLASSES[label]]
            result.append(dict(type='rectanglelabels', value=value))
        task['annotations'] = [dict(result=result)]
    (out / 'export.json').write_text(json.dumps(tasks))
    return out / 'export.json'


@pytest.mark.parametrize('correct', [correct_coco, correct_yolo, correct_label_studio])
def test_corrected_pre_labels_come_into_the_labelled_images(truth, suggested, tmp_path, correct):
    data, hidden = truth
    export = correct(suggested, hidden, tmp_path)
    main = load_tool('prepare_dataset').main
    main([str(export), '--merge', str(data), '--name', 'new', '--out', str(tmp_path)])
    chosen = {i['file_name'] for i in json.loads((suggested / 'coco.json').read_text())['images']}
    assert len(chosen) == 4 and len(chosen & {'unlabelled/10.png', 'unlabelled/copy.png'}) <= 1
    for part in ('annotations/train', f'{SPLIT}/labelled'):
        content = json.loads((tmp_path / 'new' / f'{part}.json').read_text())
        names = {i['id']: i['file_name'] for i in content['images']}
        found: dict[str, set] = {}
        for row in content['annotations']:
            box = (row['category_id'] - 1, *(round(value, 2) for value in row['bbox']))
            found.setdefault(names[row['image_id']], set()).add(box)
        for name in chosen:
            assert found[name] == {tuple(box) for box in hidden[name]}
        sources = {i['file_name']: i['label_source'] for i in content['images']}
        assert {sources[name] for name in chosen} == {'corrected'}
        assert {sources[name] for name in set(sources) - chosen} == {'human'}
    unlabelled = json.loads((tmp_path / 'new' / SPLIT / 'unlabelled.json').read_text())
    assert {i['file_name'] for i in unlabelled['images']} == set(hidden) - chosen


def test_a_plain_run_leaves_out_what_it_cannot_say(truth, suggested, capsys, monkeypatch):
    rows = (suggested / 'suggestions.csv').read_text().splitlines()
    assert rows[0].startswith('rank,file,score,teacher_student,detector_clip,near_threshold')
    assert all(row.split(',')[3:5] == ['', ''] for row in rows[1:])
    arguments = ('--ann', truth[0] / SPLIT / 'unlabelled.json', '--out', suggested)
    with pytest.raises(SystemExit):
        call_tool(monkeypatch, 'suggest_labels.py', suggested.parent / 'run', *arguments)
    assert '--force' in capsys.readouterr().err


def test_a_pair_says_where_teacher_and_student_disagree(truth, tmp_path, capsys, monkeypatch):
    data, hidden = truth
    run = make_run(data, tmp_path / 'run', pair=True)
    # Whoever suggests sees no label: with other ones, and without any, the result is the same.
    lists = tmp_path / 'lists'
    lists.mkdir()
    for part in ('unlabelled', 'labelled'):
        content = json.loads((data / SPLIT / f'{part}.json').read_text())
        (lists / f'{part}.json').write_text(json.dumps({'images': content['images']}))
    options = ('--images', data / 'images', '--count', 3, '--score-threshold', 0)
    for name, ann in (('a', data / SPLIT), ('b', lists)):
        arguments = ('--ann', ann / 'unlabelled.json', '--out', tmp_path / name)
        call_tool(monkeypatch, 'suggest_labels.py', run, *arguments, *options)
    told = capsys.readouterr().out
    assert 'no CLIP model' in told and 'no teacher and student' not in told
    first, second = ((tmp_path / n / 'suggestions.csv').read_text() for n in ('a', 'b'))
    assert first == second
    parts = [row.split(',') for row in first.splitlines()[1:]]
    assert all(0 < float(row[3]) <= 1 and 0 < float(row[5]) < 1 for row in parts)
    assert {row[1] for row in parts} <= set(hidden)


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        (('--ann', 'nowhere.json'), 'nowhere.json does not exist'),
        (('--count', 0), '--count 0'),
        (('--labelled', 'none.json'), 'none.json does not exist'),
        (('--score-threshold', 7), '--score-threshold 7'),
    ],
)
def test_wrong_calls_get_one_line(truth, tmp_path, capsys, monkeypatch, options, sentence):
    arguments = ('--ann', truth[0] / SPLIT / 'unlabelled.json', '--out', tmp_path / 'out')
    with pytest.raises(SystemExit):
        call_tool(monkeypatch, 'suggest_labels.py', tmp_path, *arguments, *options)
    assert sentence in capsys.readouterr().err and not (tmp_path / 'out').exists()
