"""Any detector with any timm backbone, by config alone: every pair takes a real joint step."""

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from mmengine.config import Config
from test_detectors import backward, build, sample

from mmdsym.stages import StageSchedule

SIZE = 64
BACKBONES = {
    # Name of timm's network: channels of its levels at strides 8, 16 and 32, and where they are.
    'tf_efficientnet_lite0': ([40, 112, 320], (2, 3, 4)),
    'convnext_atto': ([80, 160, 320], (1, 2, 3)),
    'resnet18': ([128, 256, 512], (2, 3, 4)),
    'mobilenetv3_small_100': ([24, 48, 576], (2, 3, 4)),
}
DETECTORS = {
    # Config of the plain detector, and what else three levels ask of it.
    'faster_rcnn': ('faster_rcnn_efficientnet_lite0', {}),
    'retinanet': ('retinanet_r50', {'neck.start_level': 0}),
    'fcos': ('fcos_r50', {'neck.start_level': 0}),
    'rtmdet': ('rtmdet_tiny', {}),
    # One layer of each kind, to save time.
    'deformable_detr': ('deformable_detr_r50', {'encoder.num_layers': 1, 'decoder.num_layers': 1}),
}


def swap(detector: str, backbone: str) -> Config:
    """What a user writes: another detector of the repository, another network of timm."""
    name, options = DETECTORS[detector]
    channels, levels = BACKBONES[backbone]
    cfg = Config.fromfile(REPOSITORY / f'configs/_base_/detectors/{name}.py')
    network = dict(type='mmdsym.TimmBackbone', model_name=backbone, out_indices=levels)
    options = {'backbone': dict(_delete_=True, **network), 'neck.in_channels': channels, **options}
    cfg.merge_from_dict({f'model.{key}': value for key, value in options.items()})
    return cfg


def keep_everything(model: torch.nn.Module) -> None:
    """Lets the untrained teacher find a few boxes, all of which count."""
    for last in getattr(getattr(model.teacher, 'bbox_head', None), 'rtm_reg', ()):
        # RTMDet's boxes begin with no size at all, and no view of the student shows such a box.
        torch.nn.init.ones_(last.bias)
    for name in ('roi_head', 'bbox_head'):
        settings = getattr(getattr(model.teacher, name, None), 'test_cfg', None)
        if settings is not None:
            settings.update(score_thr=0.0, max_per_img=3)
    model.set_thresholds(np.zeros(model.num_classes), np.zeros(model.num_classes))


@pytest.mark.parametrize('backbone', BACKBONES)
@pytest.mark.parametrize('detector', DETECTORS)
def test_every_pair_learns_from_its_own_pseudo_boxes(detector, backbone, tiny_config):
    torch.manual_seed(0)
    cfg = tiny_config('dsym_retinanet_r50_neu_40pct.py')
    cfg.model.detector = swap(detector, backbone).model
    model = build(cfg)
    model.copy_student_to_teacher()
    keep_everything(model)
    stages = StageSchedule(dict(joint=dict(begin=0, end=1, images=dict(labelled=2, unlabelled=2))))
    model.begin_iteration(stages.at(0), 0)
    branches = ('sup', 'unsup_teacher', 'unsup_student')
    images = {branch: torch.randn(2, 3, SIZE, SIZE) for branch in branches}
    samples = {branch: [sample(size=SIZE), sample(size=SIZE)] for branch in branches}
    samples['sup'] = [sample([[10, 10, 50, 40]], SIZE), sample([[5, 20, 60, 60]], SIZE)]
    losses = model.loss(images, samples)
    assert {name.split('_')[0] for name in losses} == {'sup', 'unsup'}
    assert model.statistics.kept.sum() >= 1
    backward(losses)
    gradients = [p.grad for p in model.student.backbone.parameters() if p.grad is not None]
    assert gradients and any(gradient.abs().sum() > 0 for gradient in gradients)
    assert model.student.backbone.model_name == backbone
