"""Every detector of the configs takes real joint steps, also where there is nothing to learn."""

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmdsym.config import complete_config, walk
from mmdsym.engine.hooks.teacher_update_hook import move_towards
from mmdsym.models import DSYMDetector
from mmdsym.stages import StageSchedule

DETECTORS = {
    'atss': 'dsym_neu_40pct.py',
    'faster_rcnn': 'dsym_faster_rcnn_r50_neu_40pct.py',
    'retinanet': 'dsym_retinanet_r50_neu_40pct.py',
    'fcos': 'dsym_fcos_r50_neu_40pct.py',
    'rtmdet': 'dsym_rtmdet_tiny_neu_40pct.py',
    'deformable_detr': 'dsym_deformable_detr_r50_neu_40pct.py',
}
IGNORE_REGIONS = {'atss', 'faster_rcnn', 'retinanet'}
SIZE = 96


def build(cfg, **options) -> DSYMDetector:
    cfg = complete_config(cfg)
    for entry in walk(cfg.model):
        if entry.get('type') == 'ResNet':
            # The small sibling has the same shape of pyramid but for its channels.
            entry.update(depth=18, init_cfg=None)
        if entry.get('in_channels') == [256, 512, 1024, 2048]:
            entry['in_channels'] = [64, 128, 256, 512]
        if entry.get('in_channels') == [512, 1024, 2048]:
            entry['in_channels'] = [128, 256, 512]
        if entry.get('pretrained'):
            entry['pretrained'] = None
    cfg.model.update(options)
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.train()
    return model


def sample(boxes=(), size=SIZE) -> DetDataSample:
    data = DetDataSample(
        metainfo=dict(
            img_shape=(size, size),
            ori_shape=(size, size),
            batch_input_shape=(size, size),
            pad_shape=(size, size),
            scale_factor=(1.0, 1.0),
        )
    )
    data.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.zeros(len(boxes), dtype=torch.long),
    )
    return data


def predictions(boxes, scores, labels) -> InstanceData:
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor(scores),
        labels=torch.tensor(labels, dtype=torch.long),
    )


KEPT_AND_UNCERTAIN = predictions(
    [[10, 10, 60, 60], [70, 70, 90, 90], [5, 70, 30, 95]], [0.9, 0.5, 0.1], [0, 1, 1]
)
NOTHING = predictions([], [], [])


def joint_step(
    model: DSYMDetector,
    teacher_output: list[InstanceData],
    monkeypatch,
    view: np.ndarray | None = None,
) -> dict:
    """One joint-stage step with a given answer of the teacher, and the student's view of it."""
    stages = StageSchedule(
        dict(joint=dict(begin=0, end=10, images=dict(labelled=1, unlabelled=len(teacher_output))))
    )
    model.begin_iteration(stages.at(0), 0)
    model.set_thresholds(np.full(2, 0.8), np.full(2, 0.3))

    def predict(inputs, samples, rescale):
        results = []
        for one in teacher_output:
            result = DetDataSample()
            result.pred_instances = one[:]
            results.append(result)
        return results

    monkeypatch.setattr(model.teacher, 'predict', predict)
    generator = torch.Generator().manual_seed(0)
    count = len(teacher_output)
    images = {
        'sup': torch.randn(1, 3, SIZE, SIZE, generator=generator),
        'unsup_teacher': torch.randn(count, 3, SIZE, SIZE, generator=generator),
        'unsup_student': torch.randn(count, 3, SIZE, SIZE, generator=generator),
    }
    samples = {
        'sup': [sample([[20, 20, 70, 70]])],
        'unsup_teacher': [sample() for _ in range(count)],
        'unsup_student': [sample() for _ in range(count)],
    }
    for seen in samples['unsup_student']:
        seen.set_metainfo(dict(homography_matrix=np.eye(3) if view is None else view))
    return model.loss(images, samples)


def backward(losses: dict) -> None:
    parts = [value for name, value in losses.items() if 'loss' in name]
    flat = [part for value in parts for part in (value if isinstance(value, list) else [value])]
    assert all(torch.isfinite(part).all() for part in flat)
    sum(part.sum() for part in flat).backward()


@pytest.mark.parametrize('name', DETECTORS)
def test_joint_steps_with_and_without_pseudo_boxes(name, tiny_config, monkeypatch):
    model = build(tiny_config(DETECTORS[name]))
    assert model.num_classes == 2
    losses = joint_step(model, [KEPT_AND_UNCERTAIN, NOTHING], monkeypatch)
    unsupervised = {key for key in losses if key.startswith('unsup_')}
    assert unsupervised
    assert {key.removeprefix('unsup_') for key in unsupervised} == {
        key.removeprefix('sup_') for key in losses if key.startswith('sup_')
    }
    backward(losses)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.student.parameters())
    assert all(p.grad is None for p in model.teacher.parameters())
    statistics = model.collect_statistics()
    assert statistics.kept.tolist() == [1, 0]
    assert statistics.uncertain.tolist() == [0, 1]
    assert statistics.dropped.tolist() == [0, 1]
    assert (statistics.images, statistics.unused_images) == (2, 1)


# mmcv's suppression on a CPU, which Faster R-CNN's proposals need, knows single precision alone.
@pytest.mark.parametrize('name', [name for name in DETECTORS if name != 'faster_rcnn'])
def test_pseudo_boxes_keep_their_precision_in_mixed_precision(name, tiny_config, monkeypatch):
    """A GPU's ``--amp`` once made half-precision boxes, which ended the first joint step."""
    model = build(tiny_config(DETECTORS[name]))
    given = []
    monkeypatch.setattr(model, '_teaches', lambda labels: given.append(labels) or True)
    rounded = KEPT_AND_UNCERTAIN[:]
    rounded.scores = rounded.scores.bfloat16()
    with torch.autocast('cpu', torch.bfloat16):
        losses = joint_step(model, [rounded], monkeypatch)
    backward(losses)
    (labels,) = given
    assert labels.kept.bboxes.dtype == labels.kept.scores.dtype == torch.float32
    assert torch.equal(labels.kept.bboxes, KEPT_AND_UNCERTAIN.bboxes[:1])


@pytest.mark.parametrize('name', DETECTORS)
def test_images_without_any_pseudo_box(name, tiny_config, monkeypatch):
    model = build(tiny_config(DETECTORS[name]), learn_from_empty_images=True)
    losses = joint_step(model, [NOTHING, NOTHING], monkeypatch)
    assert any(key.startswith('unsup_') for key in losses)
    backward(losses)


@pytest.mark.parametrize('learn_from_empty_images', [False, True])
def test_a_view_that_lost_its_kept_box_teaches_no_background(
    learn_from_empty_images, tiny_config, monkeypatch
):
    """Without ground truth assigners ignore no region: the uncertain box would be unlearnt."""
    model = build(tiny_config(DETECTORS['atss']), learn_from_empty_images=learn_from_empty_images)
    beside = np.array([[1.0, 0, -65], [0, 1, -65], [0, 0, 1]])
    losses = joint_step(model, [KEPT_AND_UNCERTAIN], monkeypatch, view=beside)
    assert not any(key.startswith('unsup_') for key in losses)
    assert model.collect_statistics().unused_images == 1


@pytest.mark.parametrize('name', DETECTORS)
def test_uncertain_regions_are_ignored_or_painted_over(name, tiny_config):
    model = build(tiny_config(DETECTORS[name]))
    assert model.ignores_regions == (name in IGNORE_REGIONS)


def test_two_stages_without_a_proposal(tiny_config, monkeypatch):
    cfg = tiny_config(DETECTORS['faster_rcnn'])
    cfg.model.detector.train_cfg.rpn_proposal.min_bbox_size = 10 * SIZE
    model = build(cfg, learn_from_empty_images=True)
    losses = joint_step(model, [KEPT_AND_UNCERTAIN, NOTHING], monkeypatch)
    backward(losses)
    losses = joint_step(model, [NOTHING, NOTHING], monkeypatch)
    backward(losses)


def test_trained_batch_norm_reaches_the_teacher(tiny_config, monkeypatch):
    model = build(tiny_config(DETECTORS['rtmdet']))
    model.copy_student_to_teacher()
    before = {k: v.clone() for k, v in model.teacher.state_dict().items()}
    backward(joint_step(model, [KEPT_AND_UNCERTAIN, NOTHING], monkeypatch))
    student = model.student.state_dict()
    moved = [k for k in before if 'running_mean' in k and not torch.equal(before[k], student[k])]
    assert moved, 'the step must have changed BatchNorm statistics'
    move_towards(model.teacher, model.student, 0.25)
    after = model.teacher.state_dict()
    for key, value in before.items():
        if value.is_floating_point():
            torch.testing.assert_close(after[key], value + 0.25 * (student[key] - value))
        else:
            assert torch.equal(after[key], student[key])


def test_unsupervised_loss_is_held_in_proportion(tiny_config, monkeypatch):
    model = build(tiny_config(DETECTORS['atss']), max_unsupervised_ratio=0.01)
    losses = joint_step(model, [KEPT_AND_UNCERTAIN], monkeypatch)

    def total(prefix):
        values = [value for key, value in losses.items() if key.startswith(prefix)]
        return sum(float(sum(v) if isinstance(v, list) else v) for v in values)

    assert total('unsup_') == pytest.approx(0.01 * total('sup_'), rel=1e-3)
    assert model.collect_statistics().guarded_iterations == 1


def test_anchors_in_uncertain_boxes_are_neither_object_nor_background(tiny_config):
    model = build(tiny_config(DETECTORS['atss']))
    far_uncertain = predictions([[8, 8, 40, 40], [64, 64, 96, 96]], [0.9, 0.5], [0, 1])
    assigner = model.student.bbox_head.assigner
    priors = InstanceData(
        priors=torch.tensor([[70.0, 70, 90, 90], [10, 10, 38, 38], [0, 60, 20, 80]])
    )
    truth = InstanceData(bboxes=far_uncertain.bboxes[:1], labels=torch.zeros(1, dtype=torch.long))
    ignored = InstanceData(bboxes=far_uncertain.bboxes[1:])
    assigned = assigner.assign(priors, [3], truth, ignored).gt_inds
    assert assigned.tolist()[0] == -1
    assert assigned.tolist()[2] == 0


class AsksForCandidates:
    wants_candidates = True

    def __call__(self, predictions, images):
        self.seen = predictions
        return [found.scores for found in predictions]


@pytest.mark.parametrize('name', ['atss', 'faster_rcnn', 'deformable_detr'])
def test_candidates_are_shown_to_a_scorer_and_change_no_box(name, tiny_config):
    # Weights of luck may give two boxes one score, whose order is then open.
    torch.manual_seed(0)
    model = build(tiny_config(DETECTORS[name])).eval()
    model.copy_student_to_teacher()
    for part in (model.teacher, getattr(model.teacher, 'roi_head', None)):
        settings = getattr(getattr(part, 'bbox_head', None), 'test_cfg', None)
        settings = settings or getattr(part, 'test_cfg', None)
        if settings is not None and 'score_thr' in settings:
            settings['score_thr'] = 0.0
    views = [sample(), sample()]
    flip = np.diag([-1.0, 1.0, 1.0])
    flip[0, 2] = SIZE
    views[1].set_metainfo(dict(homography_matrix=flip))
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.manual_seed(0))
    plain = model.predict_for_pseudo_labels(images, views)
    model.set_pseudo_label_scorer(AsksForCandidates())
    shown = model.predict_for_pseudo_labels(images, views)
    assert sum(map(len, plain)) > 0
    for before, after in zip(plain, shown, strict=True):
        assert torch.allclose(before.bboxes, after.bboxes, atol=1e-3)
        assert torch.equal(before.labels, after.labels)
        candidates = after.metainfo.get('candidates')
        assert (candidates is None) == (name == 'deformable_detr')
        if candidates is not None:
            # Every box is one of its candidates, in the frame of the original image as well.
            apart = (after.bboxes[:, None] - candidates.bboxes[None]).abs().amax(dim=2)
            assert len(candidates) > len(after) and apart.amin(dim=1).max() < 1e-3
