"""One class and 200, grey images, and boxes that are none: in adaptation, filter and analysis."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from clip_data import TINY_CLIP
from mmengine.structures import InstanceData
from PIL import Image

from mmdsym.clip import CLIPAdaptation, CLIPScorer, CropDataset, CropMetric, build_filter
from mmdsym.clip.labelled_crops import read_labelled_crops
from mmdsym.clip.pseudo_label_analysis import Analysis, JudgedPool
from mmdsym.evaluation import read_truth, write_report
from mmdsym.evaluation.held_out_quality import HeldOutQuality

SIZE = 48
IMAGES = 24
RIGHT = [[4.0, 4, 20, 22], [26.0, 24, 44, 40]]
NONE = [
    [5.0, 5, 5, 20],
    [20.0, 20, 8, 8],
    [60.0, 60, 90, 90],
    [-30.0, 2, -5, 20],
    [float('nan'), 1, 9, 9],
    [1.0, 1, float('inf'), 9],
]
"""No area, turned round, outside, and not finite."""


class Product(NamedTuple):
    ann_file: Path
    images_dir: Path
    classes: tuple[str, ...]
    labels: list[list[int]]

    @property
    def labelled(self) -> dict:
        return dict(ann_file=str(self.ann_file), images_dir=str(self.images_dir))


def make_product(folder: Path, classes: int, grey: bool) -> Product:
    """Images with two right boxes each, one partly outside, and annotations that are no boxes."""
    rng = np.random.default_rng(0)
    names = tuple(f'kind {n}' for n in range(classes))
    images, annotations, labels = [], [], []
    (folder / 'images').mkdir(parents=True)
    for index in range(IMAGES):
        pixels = rng.normal(110, 5, (SIZE, SIZE))
        labels.append([index % classes, (index + 1) % classes])
        boxes = [*RIGHT, [40, 2, 70, 14], *NONE]
        for box, label in zip(RIGHT, labels[-1], strict=True):
            x1, y1, x2, y2 = (int(side) for side in box)
            pixels[y1:y2, x1:x2] += 60 - 3 * label
        for box, label in zip(boxes, (labels[-1] * len(boxes))[: len(boxes)], strict=True):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=index,
                    category_id=label,
                    bbox=[box[0], box[1], box[2] - box[0], box[3] - box[1]],
                )
            )
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        (image if grey else image.convert('RGB')).save(folder / 'images' / f'{index}.png')
        images.append(dict(id=index, file_name=f'{index}.png', width=SIZE, height=SIZE))
    categories = [dict(id=n, name=name) for n, name in enumerate(names)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (folder / 'all.json').write_text(json.dumps(content))
    return Product(folder / 'all.json', folder / 'images', names, labels)


@pytest.fixture(params=[1, 200], ids=lambda count: f'{count} classes')
def product(tmp_path, request) -> Product:
    return make_product(tmp_path / 'product', request.param, grey=True)


def predictions(product: Product, seed: int = 0) -> list[InstanceData]:
    """The right boxes, two wrong ones, and those that are none, with scores that say little."""
    rng = torch.Generator().manual_seed(seed)
    found = []
    for labels in product.labels:
        boxes = torch.tensor([*RIGHT, [22.0, 2, 34, 20], [2.0, 26, 20, 46], *NONE])
        scores = 0.3 + 0.6 * torch.rand(len(boxes), generator=rng)
        scores[-1] = torch.nan
        every = torch.tensor((labels * len(boxes))[: len(boxes)])
        of_image = InstanceData(bboxes=boxes, scores=scores, labels=every)
        of_image.teacher_scores = scores
        found.append(of_image)
    return found


def samples(product: Product) -> list[SimpleNamespace]:
    paths = (product.images_dir / f'{index}.png' for index in range(IMAGES))
    return [SimpleNamespace(img_path=str(path), ori_shape=(SIZE, SIZE)) for path in paths]


def scorer_of(product: Product) -> CLIPScorer:
    """One that has been found useful, so that it is asked at all."""
    scorer = CLIPScorer(
        classes=product.classes,
        model=TINY_CLIP,
        prototypes=dict(**product.labelled, held_out_file=None),
    )
    scorer.prepare()
    scorer.held_out = HeldOutQuality(50, 0.9, 0.1, True)
    return scorer


def truths(product: Product) -> list[InstanceData]:
    return [
        InstanceData(bboxes=torch.tensor(RIGHT), labels=torch.tensor(of_image))
        for of_image in product.labels
    ]


def test_only_what_an_image_shows_is_a_labelled_crop(product):
    crops = read_labelled_crops(product.ann_file, product.images_dir)
    for image, labels in zip(crops.images, product.labels, strict=True):
        defects = image.boxes[image.labels < len(product.classes)]
        np.testing.assert_array_equal(defects, [*RIGHT, [40, 2, SIZE, 14]])
        assert image.labels[:3].tolist() == [*labels, labels[0]]
    assert (crops.labels() == len(product.classes)).any(), 'clean surface is found beside them'


def test_adaptation(product):
    torch.manual_seed(0)
    options = dict(size=32, augmentation=dict(), balanced=True)
    crops = CropDataset(str(product.ann_file), str(product.images_dir), **options)
    judged = CropDataset(str(product.ann_file), str(product.images_dir), size=32, jittered_copies=1)
    model = CLIPAdaptation(product.classes, model=TINY_CLIP).train()
    order = np.linspace(0, len(crops) - 1, 24).astype(int)
    batch = torch.utils.data.default_collate([crops[int(index)] for index in order])
    losses = model(**batch, mode='loss')
    assert all(loss.isfinite() for loss in losses.values())
    sum(loss for name, loss in losses.items() if 'loss' in name).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    metric = CropMetric()
    metric.dataset_meta = judged.metainfo
    shown = [judged[index] for index in range(0, len(judged), 5)]
    with torch.no_grad():
        found = model.eval()(**torch.utils.data.default_collate(shown), mode='predict')
    assert found[0]['probabilities'].shape == (len(product.classes) + 1,)
    metric.process(None, found)
    values = metric.evaluate(len(found))
    assert all(np.isfinite(value) for value in values.values())
    # Grey is a colour with three equal channels.
    rgb = make_product(product.images_dir.parent / 'rgb', len(product.classes), grey=False)
    same = CropDataset(str(rgb.ann_file), str(rgb.images_dir), size=32)
    plain = CropDataset(str(product.ann_file), str(product.images_dir), size=32)
    assert all(torch.equal(plain[n]['inputs'], same[n]['inputs']) for n in (0, 5, len(plain) - 1))


def test_filter(product):
    judge = build_filter(product.classes, scorer_of(product), product.labelled, gate=dict(tiles=2))
    images, found = samples(product), predictions(product)
    held_out = judge.fit(found, images, truths(product))
    assert judge.crops.evidence is not None and judge.crops.veto is not None
    fresh = predictions(product, seed=1)
    for scores in (held_out, judge(fresh, images)):
        for of_image in scores:
            assert ((of_image >= 0) & (of_image <= 1)).all()
            assert of_image[4:].tolist() == [0] * len(NONE)
            assert (of_image[:4] > 0).any()
    assert all(len(line.splitlines()) == 1 for line in judge.report_lines())
    empty = [of_image[:0] for of_image in fresh]
    assert all(len(scores) == 0 for scores in judge(empty, images))
    again = build_filter(product.classes, scorer_of(product), product.labelled, gate=dict(tiles=2))
    again.load_state_dict(judge.state_dict())
    for one, other in zip(judge(fresh, images), again(fresh, images), strict=True):
        torch.testing.assert_close(one, other)


def test_analysis(product, tmp_path):
    def pool(seed: int) -> JudgedPool:
        found = predictions(product, seed)
        teacher = [of_image.scores for of_image in found]
        return JudgedPool(list(range(IMAGES)), found, samples(product), dict(teacher=teacher))

    judged = Analysis(product.classes, scorer_of(product), product.labelled)
    truth = read_truth(product.ann_file, product.classes, range(IMAGES))
    judged.fit(pool(0), truth, pool(1), truth)
    unlabelled, foreign = pool(2), pool(3)
    for part in (unlabelled, foreign):
        judged.score(part)
    for name in ('clip', 'fused'):
        scores = unlabelled.concatenated(name)
        assert ((scores >= 0) & (scores <= 1)).all(), name
    quality = judged.measure(unlabelled, product.ann_file, 0.8)
    removal = judged.foreign_removal(unlabelled, foreign, product.ann_file)
    assert removal.keys() == {'fused'}
    paths = write_report(quality, tmp_path / 'out')
    assert all(path.stat().st_size for path in paths)
    with Image.open(tmp_path / 'out/pseudo_labels.png') as curves:
        assert max(curves.size) < 3000, 'a sheet of 200 panels nobody could look at'
    rows = json.loads((tmp_path / 'out/pseudo_labels.json').read_text())['rows']
    assert {row['score'] for row in rows} == {'teacher', 'clip', 'fused'}
    assert len({row['class_name'] for row in rows}) == len(product.classes) + 1
