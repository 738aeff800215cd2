"""Images without defect: told apart from unlabelled ones, and of use wherever labels are."""

import json

import numpy as np
import pytest
import torch
from conftest import make_data, write_coco
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import init_default_scope
from PIL import Image
from preparation_data import make_coco_one, save_image

from mmdsym.clip.labelled_crops import read_labelled_crops
from mmdsym.config import complete_config
from mmdsym.datasets import DefectDataset
from mmdsym.datasets.preparation.assignment import assign_splits
from mmdsym.datasets.preparation.known_good import add_known_good
from mmdsym.datasets.preparation.prepare import Choices, prepare
from mmdsym.datasets.preparation.sources.read import read_source
from mmdsym.datasets.preparation.unlabelled import add_unlabelled
from mmdsym.diffusion.labelled_images import read_labelled_images
from mmdsym.diffusion.layout import LayoutPlanner
from mmdsym.diffusion.layout_config import parse_layout
from mmdsym.errors import UserError

SPLIT = 'annotations/40pct_seed0'


def run(tmp_path, good, unlabelled=None, fix=False) -> dict[str, dict]:
    source = read_source(tmp_path / 'source')
    assign_splits(source, ['default'], 0.2)
    if unlabelled:
        add_unlabelled(source, unlabelled)
    if good:
        add_known_good(source, good)
    prepare(source, 'x', tmp_path / 'out', Choices([0.5, 1.0], [0]), fix=fix, force=True)
    folder = tmp_path / 'out/x/annotations'
    return {
        path.relative_to(folder).with_suffix('').as_posix(): json.loads(path.read_text())
        for path in folder.rglob('*.json')
    }


def names(document: dict) -> set[str]:
    return {image['file_name'] for image in document['images']}


@pytest.fixture
def source(tmp_path):
    """Twenty labelled images; ``good`` has two folders of three good images of equal names."""
    for folder in ('monday', 'tuesday'):
        for i in range(3):
            save_image(tmp_path / 'good' / folder / f'{i}.png', seed=i + 10 * (folder < 'n'))
    return make_coco_one(tmp_path / 'source')


GOOD = {f'known_good/{day}/{i}.png' for day in ('monday', 'tuesday') for i in range(3)}


def test_they_are_labelled_without_boxes_and_never_unlabelled(tmp_path, source):
    before = run(tmp_path, None)
    documents = run(tmp_path, tmp_path / 'good')
    for split in ('50pct_seed0', '100pct_seed0'):
        assert names(documents[f'{split}/known_good']) == GOOD
        labelled = names(documents[f'{split}/labelled'])
        # No share counts them: the choice of the others stays what it was.
        assert labelled == names(before[f'{split}/labelled']) | GOOD
        burn_in, held = (names(documents[f'{split}/{p}']) for p in ('burn_in', 'calibration'))
        assert burn_in | held == labelled and not burn_in & held
        assert burn_in & GOOD and held & GOOD
        assert names(documents[f'{split}/unlabelled']) == names(before[f'{split}/unlabelled'])
        for image in documents[f'{split}/labelled']['images']:
            assert image.get('known_good', False) == (image['file_name'] in GOOD)
    with_boxes = {a['image_id'] for a in documents['train']['annotations']}
    ids = {i['id'] for i in documents['train']['images'] if i['file_name'] in GOOD}
    assert len(ids) == 6 and not ids & with_boxes
    assert not names(documents['val']) & GOOD
    assert '| known good |' in (tmp_path / 'out/x/dataset_card.md').read_text()


def test_a_folder_inside_the_source_is_taken_out_of_the_unlabelled_images(tmp_path):
    from preparation_data import make_voc

    make_voc(tmp_path / 'source')
    save_image(tmp_path / 'source/JPEGImages/good/a.jpg')
    save_image(tmp_path / 'source/JPEGImages/b.jpg')
    documents = run(tmp_path, tmp_path / 'source/JPEGImages/good')
    assert names(documents['50pct_seed0/known_good']) == {'a.jpg'}
    unlabelled = names(documents['50pct_seed0/unlabelled'])
    assert 'b.jpg' in unlabelled and 'a.jpg' not in unlabelled
    with pytest.raises(UserError, match='have labelled defects, such as part'):
        run(tmp_path, tmp_path / 'source/JPEGImages')


def test_no_more_than_there_are_labelled_images(tmp_path, source):
    for i in range(12):
        save_image(tmp_path / 'good' / f'more{i}.png')
    documents = run(tmp_path, tmp_path / 'good')
    assert len(names(documents['50pct_seed0/known_good'])) == 8
    assert len(names(documents['100pct_seed0/known_good'])) == 16
    few, many = (names(documents[f'{n}pct_seed0/known_good']) for n in (50, 100))
    assert few < many
    assert 'more known-good images (18)' in (tmp_path / 'out/x/dataset_card.md').read_text()


@pytest.mark.parametrize('split', ['train', 'val'])
def test_a_good_image_with_the_pixels_of_a_defect_is_told(tmp_path, source, split):
    document = run(tmp_path, None)[split]
    twin = document['images'][0]['file_name']
    with Image.open(source / 'images' / twin) as image:
        image.save(tmp_path / 'good/monday/0.png')
    with pytest.raises(UserError, match=r'monday/0\.png: .*has the same pixels as .*--fix'):
        run(tmp_path, tmp_path / 'good')
    documents = run(tmp_path, tmp_path / 'good', fix=True)
    assert names(documents['100pct_seed0/known_good']) == GOOD - {'known_good/monday/0.png'}


def test_unlabelled_images_that_repeat_others_are_told(tmp_path, source):
    folder = tmp_path / 'more'
    for name in ('deep/er/a.png', 'deep/b.png', 'c.png'):
        save_image(folder / name, seed=7 if name != 'c.png' else 8)
    trained = sorted(names(run(tmp_path, None)['train']))[0]
    (folder / 'd.png').write_bytes((source / 'images' / trained).read_bytes())
    documents = run(tmp_path, None, folder)
    assert {f'unlabelled/{n}.png' for n in 'abcd'} <= names(documents['100pct_seed0/unlabelled'])
    page = (tmp_path / 'out/x/dataset_card.md').read_text()
    assert '1 unlabelled images have the pixels of a training image, such as unlabelled/d.png' in (
        page
    )
    assert '1 unlabelled images have the pixels of another unlabelled one' in page


def test_wrong_folders_are_named(tmp_path, source):
    (tmp_path / 'empty').mkdir()
    for folder, reason in (('nowhere', 'is no folder'), ('empty', 'holds no image')):
        with pytest.raises(UserError, match=rf'--known-good-dir .*{folder} {reason}'):
            run(tmp_path, tmp_path / folder)


@pytest.fixture
def data(tmp_path):
    """The tiny data with two known-good images among those of burn-in."""
    root = make_data(tmp_path / 'data')
    content = json.loads((root / SPLIT / 'burn_in.json').read_text())
    pixels = np.random.default_rng(3).normal(110, 6, (2, 64, 64)).astype(np.uint8)
    for index, image in enumerate(pixels):
        name = f'good{index}.png'
        Image.fromarray(image).save(root / 'images' / name)
        entry = dict(id=100 + index, file_name=name, width=64, height=64, known_good=True)
        content['images'].append(entry)
    write_coco(root / SPLIT / 'burn_in.json', content['images'], content['annotations'])
    return root


def test_they_train_as_background(data, tiny_config):
    cfg = tiny_config('baselines/supervised_neu_40pct.py', data_root=f'{data}/')
    train = cfg.train_dataloader.dataset
    train.ann_file = train.ann_file.replace('labelled.json', 'burn_in.json')
    cfg.model.backbone.pretrained = None
    cfg = complete_config(cfg)
    init_default_scope('mmdet')
    dataset = (
        MMENGINE_MODELS.build(cfg.model).train(),
        DefectDataset(**{k: v for k, v in cfg.train_dataloader.dataset.items() if k != 'type'}),
    )
    model, dataset = dataset
    good = [i for i in range(len(dataset)) if 'good' in dataset.get_data_info(i)['img_path']]
    assert len(dataset) == 6 and len(good) == 2
    samples = [dataset[index] for index in good]
    assert all(len(s['data_samples'].gt_instances) == 0 for s in samples)
    batch = {key: [sample[key] for sample in samples] for key in samples[0]}
    losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
    values = [torch.stack([*v]).sum() if isinstance(v, list) else v for v in losses.values()]
    total = sum(values)
    total.backward()
    assert total.isfinite() and total > 0
    grads = [p.grad for p in model.bbox_head.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in grads) and any(g.abs().sum() > 0 for g in grads)


def test_clip_learns_clean_surface_from_them(data):
    found = read_labelled_crops(data / SPLIT / 'burn_in.json', data / 'images', 2)
    good = [image for image in found.images if image.path.name.startswith('good')]
    assert len(good) == 2
    for image in good:
        assert image.labels.tolist() == [2, 2]


def test_defects_are_synthesised_on_them(data):
    images = read_labelled_images(
        dict(
            type='mmdsym.DefectDataset',
            ann_file=str(data / SPLIT / 'burn_in.json'),
            data_prefix=dict(img=str(data / 'images')),
        )
    )
    planner = LayoutPlanner(images, parse_layout(dict(kinds=dict(add=1.0))), seed=0)
    layouts = planner.plan_all(40)
    canvases = [layout for layout in layouts if 'good' in images[layout.source].path]
    assert any(layout.operations for layout in canvases)
    painted = {op.label for layout in canvases for op in layout.operations}
    assert painted == {0, 1}
