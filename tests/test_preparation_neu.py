"""The real NEU-DET, where it is at hand."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from preparation_data import NEU_CLASSES

from mmdsym.datasets.preparation.assignment import assign_splits
from mmdsym.datasets.preparation.prepare import Choices, prepare
from mmdsym.datasets.preparation.sources.read import read_source

FOLDER = Path(os.environ.get('MMDSYM_NEU_DET') or Path(__file__).parents[2] / 'shared' / 'neu-det')
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason='NEU-DET is not at hand')


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    out = tmp_path_factory.mktemp('data')
    source = read_source(FOLDER)
    assign_splits(source, ['default'], 0.2)
    assert prepare(source, 'neu_det', out, Choices([0.1, 0.4], [0]))
    return out / 'neu_det'


def load(prepared, name):
    return json.loads((prepared / 'annotations' / f'{name}.json').read_text())


def images_per_class(document):
    return Counter(image['file_name'].rsplit('_', 1)[0] for image in document['images'])


def test_splits_have_the_published_sizes(prepared):
    train, val = load(prepared, 'train'), load(prepared, 'val')
    assert images_per_class(train) == dict.fromkeys(NEU_CLASSES, 240)
    assert images_per_class(val) == dict.fromkeys(NEU_CLASSES, 60)
    assert len(train['annotations']) + len(val['annotations']) == 4189
    assert [category['name'] for category in train['categories']] == NEU_CLASSES


def test_forty_percent_is_96_images_of_each_class(prepared):
    labelled = load(prepared, '40pct_seed0/labelled')
    assert images_per_class(labelled) == dict.fromkeys(NEU_CLASSES, 96)
    calibration = images_per_class(load(prepared, '40pct_seed0/calibration'))
    assert set(calibration.values()) == {14, 15}
    assert sum(calibration.values()) == 86


def test_boxes_reach_both_borders_and_stay_inside(prepared):
    boxes = [a['bbox'] for name in ('train', 'val') for a in load(prepared, name)['annotations']]
    assert min(x for x, _, _, _ in boxes) == 0
    assert min(y for _, y, _, _ in boxes) == 0
    assert max(x + w for x, _, w, _ in boxes) == 200
    assert max(y + h for _, y, _, h in boxes) == 200


def test_card_names_the_twins(prepared):
    card = json.loads((prepared / 'dataset_card.json').read_text())
    assert not any(card['problems_found'].values())
    twins = [['patches_101.jpg', 'patches_105.jpg']]
    assert card['repeated_images_within_a_split'] == twins
