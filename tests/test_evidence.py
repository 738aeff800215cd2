"""Evidence on pseudo-boxes: what the teacher's own boxes say about each other."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmengine import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmdsym.clip.cluster_evidence import ClusterEvidence
from mmdsym.clip.context_evidence import BoxShapes, ContextEvidence
from mmdsym.clip.evidence import JoinedEvidence, TeacherEvidence, is_above
from mmdsym.clip.pair_overlaps import pair_overlaps
from mmdsym.clip.stability_evidence import StabilityEvidence
from mmdsym.models import candidates_shown, predict_turned, suppress

CLASSES = 3


def boxes_of(rows, size=(100, 100), **meta):
    """Predictions from rows of x1 y1 x2 y2 score label."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return InstanceData(
        bboxes=table[:, :4],
        scores=table[:, 4],
        labels=table[:, 5].long(),
        metainfo=dict(image_size=size, **meta),
    )


def all_kinds():
    shapes = BoxShapes.measure(torch.tensor([[0.0, 0, 40, 20]]), torch.tensor([0]), CLASSES)
    return JoinedEvidence(
        dict(
            teacher=TeacherEvidence(),
            context=ContextEvidence(shapes),
            cluster=ClusterEvidence(),
            stability=StabilityEvidence(),
        )
    )


def column(evidence, found, name):
    return evidence([found])[0][:, evidence.names.index(name)].tolist()


@st.composite
def predictions(draw):
    """Any boxes: beyond the image, without area, of equal scores."""
    corner = st.floats(-50, 150, width=32)
    side = st.sampled_from([0.0, 1.0, 20.0, 300.0])
    rows = draw(
        st.lists(
            st.tuples(
                corner, corner, side, side, st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 2)
            ),
            max_size=6,
        )
    )
    return boxes_of([(x, y, x + w, y + h, s, label) for x, y, w, h, s, label in rows])


@given(predictions(), predictions())
def test_every_box_gets_finite_evidence(found, other):
    found.set_metainfo(dict(candidates=other, views=[other, found]))
    evidence = all_kinds()
    results = evidence([found, other])
    for image, result in zip((found, other), results, strict=True):
        assert result.shape == (len(image), len(evidence.names))
        assert result.isfinite().all()


@given(st.lists(predictions(), min_size=1, max_size=4))
def test_images_judged_together_get_what_each_gets_alone(images):
    evidence = all_kinds()
    for found, result in zip(images, evidence(images), strict=True):
        torch.testing.assert_close(result, evidence([found])[0], rtol=1e-4, atol=1e-4)


def test_a_whole_split_is_judged_in_its_order():
    images = [boxes_of([(0, 0, 9, 9, 0.01 * n, 0)] * (n % 3)) for n in range(1, 50)]
    for found, result in zip(images, all_kinds()(images), strict=True):
        torch.testing.assert_close(result[:, 0].sigmoid(), found.scores)


@given(predictions(), predictions())
def test_pairs_overlap_as_in_mmdetection(found, other):
    overlaps = pair_overlaps(found.bboxes, other.bboxes)
    for mine, mode in zip(overlaps, ('iou', 'iof'), strict=True):
        torch.testing.assert_close(mine, bbox_overlaps(found.bboxes, other.bboxes, mode=mode))


@given(predictions())
def test_evidence_does_not_depend_on_the_order_of_distinct_boxes(found):
    found.scores = torch.linspace(0.9, 0.1, len(found)) if len(found) else found.scores
    order = torch.arange(len(found)).flip(0)
    evidence = all_kinds()
    straight, turned = evidence([found])[0], evidence([found[order]])[0]
    torch.testing.assert_close(straight[order], turned, rtol=1e-4, atol=1e-3)


def test_first_column_is_the_log_odds_of_the_score():
    found = boxes_of([(0, 0, 9, 9, 0.8, 0), (0, 0, 9, 9, 0.1, 1)])
    evidence = all_kinds()
    assert evidence.names[0] == 'teacher/score_logit'
    torch.testing.assert_close(evidence([found])[0][:, 0].sigmoid(), found.scores)


def test_columns_cover_all_names_once():
    evidence = all_kinds()
    together = [index for columns in evidence.columns.values() for index in columns]
    assert together == list(range(len(evidence.names)))
    assert evidence.names[evidence.columns['cluster'][0]] == 'cluster/log_votes'


def test_ties_are_ranked_by_position():
    above = is_above(torch.tensor([0.5, 0.5, 0.9]))
    assert above.tolist() == [[False, False, True], [True, False, True], [False, False, False]]


def test_a_part_is_told_from_the_whole():
    found = boxes_of([(0, 0, 40, 40, 0.9, 0), (0, 0, 20, 40, 0.5, 0), (60, 60, 80, 80, 0.4, 1)])
    context = ContextEvidence(BoxShapes.measure(found.bboxes, found.labels, CLASSES))
    assert column(context, found, 'inside_above') == pytest.approx([0, 1, 0])
    assert column(context, found, 'covers_above') == pytest.approx([0, 0.5, 0])
    assert column(context, found, 'overlap_above') == pytest.approx([0, 0.5, 0])
    assert column(context, found, 'overlap_above_other') == pytest.approx([0, 0, 0])
    assert column(context, found, 'support_same') == pytest.approx([0.25, 0.45, 0])
    assert column(context, found, 'parts_inside') == pytest.approx([0.5, 0, 0])
    assert column(context, found, 'wholes_around') == pytest.approx([0, 0.9, 0])
    assert column(context, found, 'best_part') == pytest.approx([0.5, 0.45, 0])
    assert column(context, found, 'share_of_class') == pytest.approx([1.4 / 1.8, 1.4 / 1.8, 4 / 18])


def test_one_defect_under_two_classes_is_seen():
    found = boxes_of([(0, 0, 40, 40, 0.9, 0), (0, 0, 40, 40, 0.5, 1)])
    context = ContextEvidence(BoxShapes.measure(found.bboxes, found.labels, CLASSES))
    assert column(context, found, 'overlap_above_other') == pytest.approx([0, 1])
    assert column(context, found, 'support_other') == pytest.approx([0.5, 0.9])


def test_borders_are_those_of_the_image():
    found = boxes_of([(0, 0, 100, 50, 0.9, 0), (10, 10, 20, 20, 0.9, 0)], size=(100, 60))
    context = ContextEvidence(BoxShapes.measure(found.bboxes, found.labels, CLASSES))
    assert column(context, found, 'borders_touched') == [3, 0]


def test_shapes_of_a_class_without_boxes_are_those_of_all():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 20, 20], [0, 0, 40, 40]])
    shapes = BoxShapes.measure(boxes, torch.tensor([0, 0, 1]), CLASSES)
    everything = torch.tensor([100.0, 400, 1600]).log().mean()
    assert shapes.mean[2, 0] == pytest.approx(everything.item())
    assert shapes.mean[0, 0] < shapes.mean[2, 0] < shapes.mean[1, 0]
    empty = BoxShapes.measure(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), CLASSES)
    assert empty.spread.tolist() == [[1, 1]] * CLASSES


def test_a_view_speaks_only_for_the_box_it_fits_best():
    rows = [(0, 0, 40, 40, 0.9, 0), (0, 0, 25, 40, 0.4, 0)]
    found = boxes_of(rows, views=[boxes_of(rows[:1])])
    assert column(StabilityEvidence(), found, 'found_share') == [1, 0]


def test_suppression_keeps_the_best_and_remembers_the_heap():
    heap = boxes_of(
        [(0, 0, 40, 40, 0.5, 0), (0, 0, 42, 40, 0.9, 0), (0, 0, 40, 40, 0.4, 1)], size=(50, 60)
    )
    kept = suppress(heap)
    assert kept.scores.tolist() == pytest.approx([0.9, 0.4])
    assert kept.metainfo['image_size'] == (50, 60)
    assert len(kept.metainfo['candidates']) == 3
    assert kept[kept.scores > 0.5].candidates is kept.candidates
    assert len(suppress(heap, max_boxes=1)) == 1
    assert len(suppress(heap[:0])) == 0


def test_scattered_votes_differ_from_agreeing_ones():
    agreeing = [(0, 0, 40, 40, 0.5, 0)] * 4
    scattered = [(x, 0, 40 + x, 40, 0.5, 0) for x in (0, 3, 6, 9)]
    cluster = ClusterEvidence()
    results = {
        name: cluster([suppress(boxes_of(rows))])[0][0]
        for name, rows in (('agreeing', agreeing), ('scattered', scattered))
    }
    index = cluster.names.index('scatter')
    assert results['agreeing'][index] == pytest.approx(0, abs=1e-3)
    assert results['scattered'][index] > 0.02
    votes = cluster.names.index('log_votes')
    assert results['agreeing'][votes].expm1() == pytest.approx(4, rel=1e-4)


def test_a_box_that_other_views_miss_is_less_stable():
    rows = [(0, 0, 40, 40, 0.9, 0), (60, 60, 80, 80, 0.9, 0)]
    found = boxes_of(rows, views=[boxes_of(rows), boxes_of(rows[:1]), boxes_of([])])
    stability = StabilityEvidence()
    assert column(stability, found, 'found_share') == pytest.approx([2 / 3, 1 / 3])
    mean = column(stability, found, 'mean_score')
    assert mean[0] > mean[1]
    other_class = boxes_of(rows, views=[boxes_of([(*row[:5], 1) for row in rows])])
    assert column(stability, other_class, 'found_share') == [0, 0]


@pytest.fixture(scope='module')
def detector():
    """ATSS with random weights that reports many boxes."""
    init_default_scope('mmdet')
    path = Path(__file__).parents[1] / 'configs/_base_/detectors/atss_efficientnet_lite0.py'
    config = Config.fromfile(path).model
    config.backbone.pretrained = None
    config.bbox_head.num_classes = 2
    config.test_cfg.score_thr = 0.0
    config.test_cfg.max_per_img = 30
    torch.manual_seed(0)
    return MODELS.build(config).eval()


def views_of(width=64, height=96):
    torch.manual_seed(1)
    shape = (height, width)
    meta = dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0), batch_input_shape=shape)
    return torch.randn(2, 3, height, width), [DetDataSample(metainfo=meta) for _ in range(2)]


@torch.no_grad()
def test_suppressed_candidates_are_the_detectors_own_boxes(detector):
    images, samples = views_of()
    own = [s.pred_instances for s in detector.predict(images, copy.deepcopy(samples))]
    with candidates_shown(detector) as settings:
        shown = [s.pred_instances for s in detector.predict(images, copy.deepcopy(samples))]
    again = [s.pred_instances for s in detector.predict(images, copy.deepcopy(samples))]
    for plain, candidates, after in zip(own, shown, again, strict=True):
        kept = suppress(candidates, **settings)
        assert len(candidates) > len(plain) == len(kept) == 30
        torch.testing.assert_close(kept.bboxes, plain.bboxes)
        torch.testing.assert_close(kept.scores, plain.scores)
        torch.testing.assert_close(after.bboxes, plain.bboxes)


def test_a_detector_without_suppression_is_left_alone():
    with candidates_shown(torch.nn.Linear(1, 1)) as settings:
        assert settings == {}


def test_turned_boxes_come_back_to_their_place():
    class CornerDetector:
        """Finds the brightest pixel."""

        def predict(self, images, samples, rescale):
            for image, sample in zip(images, samples, strict=True):
                assert sample.img_shape == image.shape[-2:]
                y, x = divmod(int(image[0].argmax()), image.shape[-1])
                corners = torch.tensor([[x, y, x + 1, y + 1]]).float()
                sample.pred_instances = InstanceData(
                    bboxes=corners, scores=torch.ones(1), labels=torch.zeros(1).long()
                )
            return samples

    images, samples = views_of()
    images[:, 0, 10, 20] = 100
    found = predict_turned(CornerDetector(), images, samples)
    assert [image.bboxes.tolist() for image in found] == [[[20, 10, 21, 11]]] * 2
    assert samples[0].img_shape == (96, 64)


def test_a_turned_image_without_boxes_is_fine(detector):
    detector.bbox_head.test_cfg.score_thr = 2.0
    try:
        assert [len(found) for found in predict_turned(detector, *views_of())] == [0, 0]
    finally:
        detector.bbox_head.test_cfg.score_thr = 0.0
