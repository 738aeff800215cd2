"""Boxes found on several views of an image, and a test that looks at all orientations."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest
import torch
from conftest import call_tool
from mmcv.transforms import Compose
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import nn

from mmdsym.benchmark.collect import evaluate
from mmdsym.benchmark.grid import digest_of_settings
from mmdsym.config import complete_config
from mmdsym.errors import UserError
from mmdsym.models import FusedViews, fuse_views
from mmdsym.test_time_views import see_all_orientations
from mmdsym.trained_run import load_run


def boxes(*rows: tuple[float, ...]) -> InstanceData:
    """Boxes from (x1, y1, x2, y2, score, label)."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return InstanceData(bboxes=table[:, :4], scores=table[:, 4], labels=table[:, 5].long())


def test_a_box_of_both_views_is_their_weighted_mean():
    found = fuse_views([boxes((10, 10, 20, 30, 0.9, 1)), boxes((12, 10, 22, 30, 0.3, 1))])
    torch.testing.assert_close(found.bboxes, torch.tensor([[10.5, 10.0, 20.5, 30.0]]))
    torch.testing.assert_close(found.scores, torch.tensor([0.6]))
    assert found.labels.tolist() == [1] and found.labels.dtype == torch.int64


def test_a_box_of_one_view_has_half_its_score_and_comes_last():
    one = boxes((10, 10, 20, 20, 0.8, 0), (40, 40, 60, 60, 0.5, 0))
    found = fuse_views([one, boxes((40, 40, 60, 60, 0.5, 0))])
    torch.testing.assert_close(found.scores, torch.tensor([0.5, 0.4]))
    assert found.bboxes[0].tolist() == [40, 40, 60, 60]


def test_classes_and_distant_boxes_stay_apart():
    views = [boxes((10, 10, 20, 20, 0.8, 0)), boxes((10, 10, 20, 20, 0.8, 1))]
    assert sorted(fuse_views(views).labels.tolist()) == [0, 1]
    # They overlap by 0.6, as far as suppression lets them.
    beside = boxes((0, 0, 80, 10, 0.8, 0), (20, 0, 100, 10, 0.7, 0))
    assert len(fuse_views([beside, beside])) == 2


@pytest.mark.parametrize('empty', [2, 1])
def test_views_without_boxes_are_fine(empty):
    full = [boxes((10, 10, 20, 20, 0.8, 0))] * (2 - empty)
    found = fuse_views([boxes()] * empty + full)
    assert found.bboxes.shape == (2 - empty, 4) and len(found.scores) == len(found.labels)


class Finder(nn.Module):
    """Finds the bright rectangle of a view, as a detector states it: in pixels before scaling."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes = []

    def test_step(self, data: dict) -> list:
        for image, sample in zip(data['inputs'], data['data_samples'], strict=True):
            assert sample.img_shape == image.shape[-2:]
            self.shapes.append(tuple(sample.img_shape))
            y, x = torch.nonzero(image[0] > 128, as_tuple=True)
            corners = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()
            scale = torch.tensor(sample.scale_factor).repeat(2)
            sample.pred_instances = boxes((*(corners / scale).tolist(), 1.0, 0))
        return data['data_samples']


@pytest.mark.parametrize(('size', 'keep_ratio'), [((96, 96), True), ((128, 48), False)])
def test_all_orientations_agree_on_a_box(size, keep_ratio, tmp_path):
    image = np.zeros((40, 64, 3), dtype=np.uint8)
    image[8:16, 24:56] = 255
    init_default_scope('mmdet')
    cfg = Config.fromfile('configs/baselines/supervised_neu_40pct.py')
    cfg.image_size = size
    see_all_orientations(cfg)
    pipeline = cfg.test_dataloader.dataset.pipeline
    pipeline[1].update(scale=size, keep_ratio=keep_ratio)
    pipeline.pop(2)  # the labels
    path = tmp_path / 'image.png'
    cv2.imwrite(str(path), image)
    views = Compose(list(pipeline))(dict(img_path=str(path), img_id=1))
    batch = {key: [[view] for view in value] for key, value in views.items()}
    finder = Finder()
    (found,) = FusedViews(finder).test_step(batch)
    torch.testing.assert_close(
        found.pred_instances.bboxes, torch.tensor([[24.0, 8.0, 56.0, 16.0]]), atol=1.1, rtol=0
    )
    torch.testing.assert_close(found.pred_instances.scores, torch.ones(1))
    assert len(finder.shapes) == 8
    assert {shape[0] > shape[1] for shape in finder.shapes} == {True, False}


def test_a_pipeline_of_another_kind_is_refused():
    cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=[dict(type='Collect')]))))
    with pytest.raises(UserError, match='without --tta'):
        see_all_orientations(cfg)


def test_the_tool_tests_a_pair_in_all_orientations(tiny_config, tmp_path, monkeypatch):
    cfg = tiny_config('baselines/teacher_student_neu_40pct.py', image_size=(64, 64))
    cfg.model.detector.backbone.pretrained = None
    cfg.model.detector.test_cfg.update(score_thr=0.0, max_per_img=5)
    for name in ('val_dataloader', 'test_dataloader'):
        cfg[name].update(num_workers=0, persistent_workers=False)
    cfg = complete_config(cfg)
    cfg.dump(tmp_path / 'config.py')
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'iter_1.pth')
    found = {}
    for name, options in (('plain', []), ('fused', ['--tta'])):
        call_tool(
            *(monkeypatch, 'test.py', tmp_path / 'config.py', tmp_path / 'iter_1.pth', *options),
            *('--out', tmp_path / f'{name}.pkl', '--work-dir', tmp_path / name),
        )
        with (tmp_path / f'{name}.pkl').open('rb') as file:
            found[name] = pickle.load(file)  # noqa: S301  (written above)
    assert [image['img_id'] for image in found['plain']] == [
        image['img_id'] for image in found['fused']
    ]
    for plain, fused in zip(found['plain'], found['fused'], strict=True):
        before, after = plain['pred_instances'], fused['pred_instances']
        # Eight views of an untrained detector seldom agree, so that more boxes with lower scores
        # are left.
        assert len(after['scores']) > len(before['scores']) == 5
        assert after['scores'].max() <= before['scores'].max() + 0.1
        assert after['bboxes'].min() >= 0 and after['bboxes'].max() <= max(plain['ori_shape'])
    run = load_run(tmp_path / 'iter_1.pth')
    before = digest_of_settings(run.config)
    for network in ('teacher', 'student'):
        assert 'coco/bbox_mAP_50' in evaluate(run, network, turned=True)
    # One test leaves no trace in the next one, nor in what the run says about itself.
    assert digest_of_settings(run.config) == before
