"""What makes a label worth having, that suggestions differ, and that formats say the same."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from PIL import Image
from torch.nn.functional import normalize

from mmdsym.datasets.preparation.merging.label_studio_export import FILE_KEY
from mmdsym.datasets.preparation.sources.yolo import parse_label_line
from mmdsym.errors import UserError
from mmdsym.labelling import looking
from mmdsym.labelling.image_list import ListedImage, read_image_list
from mmdsym.labelling.label_studio import LINK, as_tasks
from mmdsym.labelling.looking import Observer, pool_features
from mmdsym.labelling.novelty import FeatureSpace
from mmdsym.labelling.reasons import explain, usual_values
from mmdsym.labelling.second_opinion import SecondOpinion, scorer_of
from mmdsym.labelling.selection import select
from mmdsym.labelling.suggesting import Suggestion, Suggestions, _thresholds
from mmdsym.labelling.worth import NO_DOUBT, Doubt, closeness, disagreement
from mmdsym.labelling.writing import OWN_ENTRIES, write_suggestions
from mmdsym.labelling.yolo import alike, as_yolo
from mmdsym.trained_run import CLIP_FILTER_STATE, OWN_THRESHOLDS, TrainedRun

CLASSES = ('dent', 'spot "deep" & wide')


def boxes(*rows: tuple) -> InstanceData:
    """Each row: x1, y1, x2, y2, score, label."""
    values = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return InstanceData(bboxes=values[:, :4], scores=values[:, 4], labels=values[:, 5].long())


SURE = (0, 0, 10, 10, 0.9, 0)


def test_detectors_that_find_the_same_do_not_disagree():
    assert disagreement(boxes(SURE), boxes(SURE)).value == pytest.approx(0, abs=1e-6)
    assert disagreement(boxes(), boxes()) == NO_DOUBT


@pytest.mark.parametrize(
    ('other', 'expected'),
    [
        (boxes(), 0.9),
        (boxes((20, 20, 30, 30, 0.2, 1)), 0.9),
        (boxes((0, 0, 10, 10, 0.9, 1)), 0.9),
        (boxes((0, 0, 10, 5, 0.9, 0)), 0.45),
        (boxes((0, 0, 10, 10, 0.3, 0)), 0.6),
    ],
)
def test_disagreement_is_the_score_of_what_the_other_does_not_see(other, expected):
    for pair in ((boxes(SURE), other), (other, boxes(SURE))):
        assert disagreement(*pair).value == pytest.approx(expected, abs=1e-5)


def test_boxes_between_the_thresholds_are_in_doubt():
    keep, drop = torch.tensor([0.6, 0.6]), torch.tensor([0.3, 0.3])

    def doubt(*scores):
        return closeness(boxes(*[(0, 0, 9, 9, s, 1) for s in scores]), keep, drop)

    assert doubt() == NO_DOUBT
    assert doubt(0.95) == doubt(0.05) == NO_DOUBT
    assert doubt(0.4) == Doubt(0.5, 1) and doubt(0.4, 0.5).value == pytest.approx(2 / 3)
    assert doubt(0.4, 0.9).value == pytest.approx(1 / 3)
    assert 0 < doubt(0.7).value < doubt(0.65).value < 0.5


def test_scores_of_the_filter_are_no_limit_for_those_of_the_detector():
    state = dict(keep_thresholds=torch.tensor([0.8, 0.6]), drop_thresholds=torch.tensor([0.2, 0.4]))
    checkpoint = dict(state_dict=state, meta=dict(dataset_meta=dict(classes=('dent', 'spot'))))
    config = Config(dict(model=dict(detector={}), val_dataloader=dict(dataset={})))
    run = TrainedRun(config, Path('c.py'), Path('iter_1.pth'), checkpoint)
    limits = [each.tolist() for each in _thresholds(run)]
    assert limits == [pytest.approx([0.8, 0.6]), pytest.approx([0.2, 0.4])]
    checkpoint.update({CLIP_FILTER_STATE: {}, OWN_THRESHOLDS: [0.5, 0.3]})
    limits = [each.tolist() for each in _thresholds(run)]
    assert limits == [pytest.approx([0.5, 0.3])] * 2


def directions(*angles: float) -> torch.Tensor:
    radians = torch.tensor(angles) / 180 * torch.pi
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def test_pooled_features_leave_padding_out():
    level = torch.rand(1, 4, 8, 8, generator=torch.manual_seed(0))
    padded = torch.cat([level, torch.full((1, 4, 8, 8), 9.0)], dim=2)
    whole = pool_features([level, level[:, :2]])
    assert whole.shape == (6,) and float(whole.norm()) == pytest.approx(1)
    assert torch.allclose(pool_features([padded, padded[:, :2]], (0.5, 1.0)), whole)
    assert not torch.allclose(pool_features([padded, padded[:, :2]]), whole)


def test_what_is_far_from_labelled_images_is_new():
    features, labelled = directions(0, 90, 180, 270), directions(1, 89)
    space = FeatureSpace(features, labelled)
    novelty = space.novelty(space.from_labelled)
    assert (novelty[:2] < 0.1).all() and (novelty[2:] > 0.8).all()


def test_suggestions_are_no_copies_of_each_other_or_of_labelled_images():
    rng = torch.manual_seed(0)
    centres = normalize(torch.randn(5, 16, generator=rng), dim=1)
    # Twenty images of each of five kinds, the first kind labelled; the second holds most doubt.
    features = normalize(
        centres.repeat_interleave(20, dim=0) + 0.02 * torch.randn(100, 16, generator=rng), dim=1
    )
    doubt = torch.zeros(100)
    doubt[:40] = 0.9
    space = FeatureSpace(features, centres[:1])
    chosen = select(space, doubt, 4)
    assert [choice.index // 20 for choice in chosen][0] == 1
    assert {choice.index // 20 for choice in chosen} == {1, 2, 3, 4}
    assert all(a.score >= b.score for a, b in zip(chosen, chosen[1:], strict=False))
    copies = torch.cat([centres[:1], centres[1:2], centres[1:2]])
    found = select(FeatureSpace(copies, centres[:1]), torch.ones(3), 3)
    assert len(found) == 1 and found[0].index in (1, 2)


def test_more_doubt_comes_first_among_equally_new_images():
    space = FeatureSpace(directions(0, 90, 180, 270), torch.zeros(0, 2))
    doubt = torch.tensor([0.1, 0.2, 0.9, 0.3])
    assert select(space, doubt, 1)[0].index == 2
    assert len({choice.index for choice in select(space, doubt, 9)}) == 4


def test_reasons_name_what_stands_out():
    doubts = [{'near_threshold': Doubt(v, 0)} for v in (0.1, 0.2, 0.3, 0.9)]
    usual = usual_values(doubts)
    assert usual == {'near_threshold': 0.3}
    told = explain(doubts[3], usual, 0.9, CLASSES, False)
    assert told == 'scores near the threshold (dent); unlike labelled images; no defect found'
    assert explain(doubts[0], usual, 0.1, CLASSES, True) == 'the most informative of the rest'


class Bright(torch.nn.Module):
    """Agrees with boxes on bright pixels."""

    classes = CLASSES
    held_out = None

    def embed(self, images, found):
        return [
            torch.stack([image[:, int(b[1]) : int(b[3]), int(b[0]) : int(b[2])].float().mean()])
            for image, of_image in zip(images, found, strict=True)
            for b in [of_image[0]]
        ]

    def score_features(self, features, labels):
        return SimpleNamespace(agreement=features / 255)


def test_clip_is_asked_about_the_surest_box(tmp_path):
    pixels = np.zeros((20, 20), dtype=np.uint8)
    pixels[:10, :10] = 255
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    opinion = SecondOpinion(Bright(), CLASSES)
    assert opinion.is_useful
    bright, dark = (0, 0, 10, 10, 0.8, 0), (10, 10, 20, 20, 0.8, 1)
    assert opinion.doubt(tmp_path / 'a.png', boxes(bright)).value == pytest.approx(0)
    doubt = opinion.doubt(tmp_path / 'a.png', boxes(dark))
    assert doubt.value == pytest.approx(0.8) and doubt.label == 1
    assert opinion.doubt(tmp_path / 'a.png', boxes()) == NO_DOUBT


def test_the_clip_model_of_a_run_is_found():
    hook = dict(type='mmdsym.CLIPPseudoLabelFilterHook', scorer=dict(type='x'))
    assert scorer_of(Config(dict(custom_hooks=[dict(type='other'), hook]))) == dict(type='x')
    assert scorer_of(Config(dict(custom_hooks=[dict(type='other')]))) is None
    assert scorer_of(Config({})) is None


@pytest.fixture
def suggestions(tmp_path):
    """Two images, one in a folder, with two boxes and none."""
    entries = []
    for rank, name in enumerate(('deep/a.png', 'b.png'), start=1):
        path = tmp_path / 'data' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (40, 20), (90, 90, 90)).save(path)
        found = boxes((4, 2, 24, 12, 0.8, 0), (1, 1, 5, 19, 0.4, 1)) if rank == 1 else boxes()
        entries.append(
            Suggestion(
                rank, ListedImage(name, path), (40, 20), 0.5, 0.7, {'near_threshold': 0.25},
                'scores near the threshold (dent)', found,
            )
        )  # fmt: skip
    return Suggestions(CLASSES, 'run/iter_1', entries, looked_at=9)


def test_all_formats_say_the_same(suggestions, tmp_path):
    out = tmp_path / 'out'
    write_suggestions(suggestions, out)
    assert sorted(path.name for path in out.iterdir()) == sorted(OWN_ENTRIES)
    rows = list(csv.DictReader(io.StringIO((out / 'suggestions.csv').read_text())))
    assert [row['file'] for row in rows] == ['deep/a.png', 'b.png']
    assert rows[0]['near_threshold'] == '0.2500' and rows[0]['detector_clip'] == ''
    expected = [((4, 2, 24, 12), 0), ((1, 1, 5, 19), 1)]

    coco = json.loads((out / 'coco.json').read_text())
    assert [c['id'] for c in coco['categories']] == [1, 2]
    assert [i['id'] for i in coco['images']] == [1, 2]
    assert [a['id'] for a in coco['annotations']] == [1, 2]
    assert [a['score'] for a in coco['annotations']] == [0.8, 0.4]
    assert [(a['bbox'], a['category_id'] - 1) for a in coco['annotations']] == [
        ([x1, y1, x2 - x1, y2 - y1], label) for (x1, y1, x2, y2), label in expected
    ]

    lines = (out / 'yolo/labels/deep/a.txt').read_text().splitlines()
    for line, (edges, label) in zip(lines, expected, strict=True):
        number, found = parse_label_line(line, 40, 20)
        assert number == label and found == pytest.approx(edges, abs=1e-3)
    assert (out / 'yolo/labels/b.txt').read_text() == ''
    assert (out / 'yolo/classes.txt').read_text().splitlines() == list(CLASSES)

    tasks = json.loads((out / 'label_studio.json').read_text())
    config = ElementTree.fromstring((out / 'label_studio_config.xml').read_text())
    control, labels = config.find('RectangleLabels'), config.findall('.//Label')
    assert [label.get('value') for label in labels] == list(CLASSES)
    for region, (edges, label) in zip(tasks[0]['predictions'][0]['result'], expected, strict=True):
        value = region['value']
        assert (region['from_name'], region['to_name']) == (control.get('name'), 'image')
        assert value['rectanglelabels'] == [CLASSES[label]]
        assert (value['x'] * 0.4, value['y'] * 0.2) == pytest.approx(edges[:2])
        assert value['width'] * 0.4 == pytest.approx(edges[2] - edges[0])
    assert tasks[0]['data']['image'] == '/data/local-files/?d=deep/a.png'
    assert tasks[1]['predictions'][0]['result'] == []
    assert (out / 'images/deep/a.png').is_file()
    with Image.open(out / 'suggestions.png') as sheet:
        assert sheet.width > 800 and sheet.convert('RGB').getcolors(1 << 20)


def test_images_that_would_share_a_yolo_file_have_none(suggestions):
    other = replace(suggestions.images[1], image=ListedImage('deep/a.jpg', Path('a.jpg')))
    found = replace(suggestions, images=[*suggestions.images, other])
    assert alike(found) == ['deep/a.png', 'deep/a.jpg']
    assert sorted(as_yolo(found)) == ['classes.txt', 'labels/b.txt']


def test_a_data_set_is_never_replaced(suggestions, tmp_path):
    image = tmp_path / 'data/images/mine.png'
    image.parent.mkdir(parents=True)
    image.write_bytes(b'mine')
    with pytest.raises(UserError, match=r'holds images, which no suggestions .* another --out'):
        write_suggestions(suggestions, tmp_path / 'data', force=True)
    assert image.read_bytes() == b'mine'


def test_links_name_files_whatever_their_names(suggestions):
    first = suggestions.images[0]
    odd = replace(first, image=replace(first.image, name='deep/part #3 & 50%.png'))
    (task,) = as_tasks(replace(suggestions, images=[odd]))
    link = task['data']['image']
    assert unquote(link.removeprefix(LINK)) == 'deep/part #3 & 50%.png'
    assert not set('#& ') & set(link.removeprefix(LINK))
    assert task['data'][FILE_KEY] == 'deep/part #3 & 50%.png'


def test_nothing_is_overwritten_without_force(suggestions, tmp_path):
    out = tmp_path / 'out'
    write_suggestions(suggestions, out)
    (out / 'notes.txt').write_text('mine')
    with pytest.raises(UserError, match='coco.json.*--force'):
        write_suggestions(suggestions, out)
    fewer = Suggestions(CLASSES, 'run', suggestions.images[1:], looked_at=9)
    write_suggestions(fewer, out, force=True)
    assert (out / 'notes.txt').read_text() == 'mine'
    assert not (out / 'images/deep').exists() and (out / 'images/b.png').is_file()
    with pytest.raises(UserError, match='nothing to suggest'):
        write_suggestions(Suggestions(CLASSES, 'run', [], 3), tmp_path / 'other')
    with pytest.raises(UserError, match='is a file'):
        write_suggestions(suggestions, out / 'notes.txt')


def test_an_image_that_opencv_cannot_decode_is_named(tmp_path, monkeypatch):
    def load(detector, path, test_pipeline):
        # What MMCV does where OpenCV gives nothing.
        raise AssertionError(f'failed to load image: {path}')

    monkeypatch.setattr(looking, 'inference_detector', load)
    observer = Observer.__new__(Observer)
    observer._pipeline = None
    with pytest.raises(UserError, match='torn.png cannot be read'):
        observer._detect(None, tmp_path / 'torn.png')


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('{', 'cannot be read'),
        ('[]', 'cannot be read'),
        ('{"images": []}', 'lists no image'),
        ('{"images": [{"file_name": "gone.png"}]}', 'gone.png does not exist'),
    ],
)
def test_a_wrong_list_is_named(tmp_path, text, reason):
    (tmp_path / 'list.json').write_text(text)
    with pytest.raises(UserError, match=reason):
        read_image_list(tmp_path / 'list.json', Path(tmp_path))
