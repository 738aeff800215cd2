"""The filter in training: what it asks, what it learns, and that a resumed run does the same."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from clip_data import TINY_CLIP
from mmengine.structures import InstanceData
from PIL import Image
from test_training import losses, scalars, tiny_run  # noqa: F401  (a fixture)

from mmdsym.clip import (
    BoxOpinion,
    BoxShapes,
    ClassEvidence,
    CLIPPseudoLabelFilterHook,
    ContextEvidence,
    CropOpinion,
    EmbeddingMemory,
    ForeignVeto,
    Fusion,
    ImageGate,
    JoinedEvidence,
    PseudoLabelFilter,
    TeacherEvidence,
    box_opinion,
    build_filter,
    crop_kinds,
    crop_opinion,
    fit_together,
    foreign_veto,
)
from mmdsym.clip import pseudo_label_filter as filter_module
from mmdsym.clip import scorer as scorer_module
from mmdsym.clip.box_embedder import BoxEmbedder
from mmdsym.clip.encoder import CropEncoder
from mmdsym.clip.filter_building import build_scorer
from mmdsym.clip.filter_counts import FilterCounts
from mmdsym.clip.filter_sheet import draw_filter_sheet
from mmdsym.clip.scored_once import ScoredOnce
from mmdsym.clip.scorer import BoxScores
from mmdsym.clip.soft_labels import draw_by_weight
from mmdsym.crops import crop_windows
from mmdsym.errors import UserError
from mmdsym.evaluation.held_out_quality import HeldOutQuality
from mmdsym.models import (
    CalibratedScorer,
    LabelledPredictions,
    PseudoLabelReviser,
    PseudoLabels,
)
from mmdsym.models.pseudo_labels import select_pseudo_labels
from mmdsym.registry import MODELS

CLASSES = ('dent', 'spot')
SIZE = 64


@MODELS.register_module()
class BrightnessScorer(torch.nn.Module):
    """Takes bright boxes for class 0, dark ones for class 1, grey ones for a clean surface."""

    def __init__(self, classes=CLASSES, better_than_chance: bool = True) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.held_out = SimpleNamespace(better_than_chance=better_than_chance)
        self.calls = []

    def embed(self, images, boxes):
        self.calls.append([len(of_image) for of_image in boxes])
        return [
            crop_windows(image.float(), of_image, 2).mean(dim=1).flatten(1) / 255
            for image, of_image in zip(images, boxes, strict=True)
        ]

    def likeness(self, features, labels):
        return self.score_features(features, labels).agreement

    def score_features(self, features, labels):
        level = features.mean(dim=1) * 12 - 5
        distribution = torch.stack([level, -level, 1 - level.abs()], dim=1).softmax(dim=1)
        own = distribution.gather(1, labels[:, None])[:, 0]
        return BoxScores(own, distribution[:, 2], distribution, features)


@pytest.fixture
def images(tmp_path):
    """Twelve images: a bright box at the left, a dark one at the right, clean below."""
    paths = []
    rng = np.random.default_rng(0)
    for index in range(12):
        pixels = rng.normal(110, 6, (SIZE, SIZE))
        pixels[4:28, 4:28] += 90
        pixels[4:28, 36:60] -= 90
        paths.append(str(tmp_path / f'{index}.png'))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1])
    return [SimpleNamespace(img_path=path, ori_shape=(SIZE, SIZE)) for path in paths]


RIGHT = torch.tensor([[4.0, 4, 28, 28], [36, 4, 60, 28]])
BOXES = torch.cat([RIGHT, torch.tensor([[8.0, 36, 30, 60], [36, 34, 58, 60]])])


def predictions(count: int, seed: int = 1) -> list[InstanceData]:
    """The right boxes and two on clean surface, with scores that tell nothing."""
    rng = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        scores = torch.rand(4, generator=rng) * 0.6 + 0.2
        of_image = InstanceData(
            bboxes=BOXES.clone(), scores=scores, labels=torch.tensor([0, 1, 0, 1])
        )
        of_image.teacher_scores = scores
        found.append(of_image)
    return found


def truths(count: int) -> list[InstanceData]:
    return [InstanceData(bboxes=RIGHT, labels=torch.tensor([0, 1])) for _ in range(count)]


FOLDS = dict(folds=3, min_right=4, min_wrong=4)


def make_filter(
    scorer=None, reuse: float = 8.0, asks: bool = True, context: bool = False, **options
) -> PseudoLabelFilter:
    scorer = scorer or BrightnessScorer()
    kinds = {'teacher': TeacherEvidence()}
    if context:
        kinds['context'] = ContextEvidence(BoxShapes.measure(RIGHT, torch.tensor([0, 1]), 2))
    of_boxes = JoinedEvidence(kinds)
    of_crops = JoinedEvidence({'class': ClassEvidence(scorer)}) if asks else None
    fusion = Fusion(crop_kinds(of_crops), 2, **FOLDS) if asks else None
    # The test's images are fewer than a veto wants by itself.
    veto = ForeignVeto([scorer.likeness], options.pop('veto_cost', 0.02), min_images=5)
    rest = {name: options.pop(name) for name in ('gate', 'mode') if name in options}
    return PseudoLabelFilter(
        scorer,
        BoxEmbedder(scorer, EmbeddingMemory(reuse)),
        BoxOpinion(of_boxes, Fusion(of_boxes.columns, 2, **FOLDS)),
        CropOpinion(of_crops, fusion, veto=veto, **options),
        2,
        **rest,
    )


def test_it_is_what_the_detector_expects():
    assert isinstance(make_filter(), CalibratedScorer)
    assert isinstance(make_filter(), PseudoLabelReviser)


def test_it_learns_from_calibration_images_and_tells_right_from_wrong(images):
    judge = make_filter(max_boxes=4)
    found = predictions(12)
    before = judge(found, images)
    for image, scores in zip(found, before, strict=True):
        torch.testing.assert_close(scores, image.scores)
    held_out = torch.stack(judge.fit(found, images, truths(12)))
    assert held_out[:, :2].min() > held_out[:, 2:].max()
    assert judge.crops.counts and judge.fits == 1
    fresh = predictions(12, seed=7)
    scores = torch.stack(judge(fresh, images))
    assert scores[:, :2].min() > scores[:, 2:].max()
    assert ((scores >= 0) & (scores <= 1)).all()
    assert not torch.stack([image.clip_scores for image in fresh]).isnan().any()


def test_scores_at_calibration_are_not_those_of_the_fit_itself(images):
    judge = make_filter(max_boxes=4)
    found = predictions(12)
    held_out = torch.stack(judge.fit(found, images, truths(12)))
    assert not torch.allclose(held_out, torch.stack(judge(found, images)), atol=1e-6)


def test_all_crops_of_a_batch_go_through_in_one_pass(images):
    scorer = BrightnessScorer()
    judge = make_filter(scorer, max_boxes=3)
    judge.fit(predictions(12), images, truths(12))
    judge.embedder.memory.forget()
    scorer.calls.clear()
    fresh = predictions(8)
    for image in fresh:
        image.scores = torch.full((4,), 0.9)
    fresh[3].scores[:] = 0.01
    fresh[4] = fresh[4][:0]
    # Low scores are the likelier ones where scores tell nothing, so the floor is set by hand.
    judge.boxes = lambda found, _: [of_image.scores.double() for of_image in found]
    judge.crops.floor = 0.5
    scores = judge(fresh, images[:8])
    # The image below the floor and the one without boxes are not even looked at.
    assert scorer.calls == [[3] * 6]
    assert [len(of_image) for of_image in scores] == [4, 4, 4, 4, 0, 4, 4, 4]
    assert fresh[3].clip_scores.isnan().all()
    assert max(scores[3]) < min(scores[0][:2])
    judge(fresh, images[:8])
    assert len(scorer.calls) == 1, 'boxes that stayed are remembered'


def test_without_reuse_every_visit_embeds_anew(images):
    scorer = BrightnessScorer()
    judge = make_filter(scorer, reuse=0)
    judge.fit(predictions(12), images, truths(12))
    one = judge(predictions(4), images[:4])
    two = judge(predictions(4), images[:4])
    assert len(scorer.calls) == 3
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_boxes_that_are_none_have_score_zero(images):
    judge = make_filter()
    judge.fit(predictions(12), images, truths(12))
    strange = predictions(1)
    strange[0].bboxes = torch.tensor(
        [[torch.nan, 0, 5, 5], [5, 5, 5, 9], [-90, -90, -50, -50], [4, 4, 28, 28]]
    )
    strange[0].scores = torch.tensor([0.9, 0.9, 0.9, torch.nan])
    scores = judge(strange, images[:1])[0]
    assert scores.isfinite().all()
    assert scores.tolist() == [0, 0, 0, 0]


def test_a_scorer_no_better_than_chance_is_never_asked(images):
    scorer = BrightnessScorer()
    judge = make_filter(scorer, asks=False)
    judge.fit(predictions(12), images, truths(12))
    judge(predictions(12), images)
    assert not scorer.calls and not judge.crops.counts


def test_evidence_that_says_nothing_is_not_computed(images):
    scorer = BrightnessScorer()
    judge = make_filter(scorer, veto_cost=0.0)
    found = predictions(12)
    for image in found:
        image.scores = torch.tensor([0.9, 0.8, 0.2, 0.1])
        image.bboxes = BOXES[[0, 1, 0, 1]] + torch.tensor([[0.0], [0], [9], [9]])
        image.labels = torch.tensor([0, 1, 0, 1])
    scorer.score_features = lambda f, n: BoxScores(
        *torch.zeros(2, len(f)), torch.zeros(len(f), 3), f
    )
    judge.fit(found, images, truths(12))
    scorer.calls.clear()
    judge(found, images)
    assert not judge.crops.counts and not scorer.calls


def test_clip_vetoes_what_is_no_defect_of_its_class(images, tmp_path):
    """Right calibration boxes all agree with their class; a foreign image's boxes do not."""
    foreign = str(tmp_path / 'foreign.png')
    Image.fromarray(np.full((SIZE, SIZE), 110, dtype=np.uint8)).save(foreign)
    pool = [SimpleNamespace(img_path=foreign, ori_shape=(SIZE, SIZE)), images[0]]
    scores, limited = [], []
    for cost in (0.03, 0.0):
        judge = make_filter(veto_cost=cost, max_boxes=4)
        # No wrong box among those to learn from lies on clean surface.
        found = predictions(12)
        for image in found:
            image.bboxes = BOXES[[0, 1, 0, 1]] + torch.tensor([[0.0], [0], [9], [9]])
        judge.fit(found, images, truths(12))
        scores.append(judge(predictions(2), pool))
        restored = make_filter(veto_cost=cost)
        restored.load_state_dict(judge.state_dict())
        assert (restored.crops.veto.limits == judge.crops.veto.limits).all()
        judge.crops.max_boxes = 2
        limited.append(judge(predictions(1), pool[:1])[0])
    vetoed, free = scores
    torch.testing.assert_close(vetoed[0], free[0] / 4)
    torch.testing.assert_close(vetoed[1], free[1])
    # Nor are boxes kept that it was not shown.
    torch.testing.assert_close(limited[0], limited[1] / 4)


def test_the_gate_closes_for_a_clean_image(images, tmp_path):
    clean = str(tmp_path / 'clean.png')
    Image.fromarray(np.full((SIZE, SIZE), 110, dtype=np.uint8)).save(clean)
    judge = make_filter(gate=ImageGate(tiles=2, passed_share=1.0))
    judge.fit(predictions(12), images, truths(12))
    pool = [images[0], SimpleNamespace(img_path=clean, ori_shape=(SIZE, SIZE))]
    scores = judge(predictions(2), pool)
    assert scores[0].max() > 0.5 and scores[1].max() == 0


def test_what_the_gate_skips_is_counted_apart(images, tmp_path):
    clean = str(tmp_path / 'clean.png')
    Image.fromarray(np.full((SIZE, SIZE), 110, dtype=np.uint8)).save(clean)
    judge = make_filter(gate=ImageGate(tiles=2, passed_share=1.0))
    judge.fit(predictions(12), images, truths(12))
    skipped = SimpleNamespace(img_path=clean, ori_shape=(SIZE, SIZE))
    # A defect, nothing found on one, a clean surface, nothing found there, and boxes that are none.
    pool = [images[0], images[1], skipped, skipped, images[2]]
    found = predictions(5)
    found[1], found[3] = found[1][:0], found[3][:0]
    found[4].bboxes = torch.full((4, 4), torch.nan)
    for of_image, scores in zip(found, judge(found, pool), strict=True):
        of_image.scores = scores
    found[0].scores = torch.tensor([0.9, 0.5, 0.5, 0.1])
    keep, drop = torch.full((2,), 0.8), torch.full((2,), 0.3)
    judge.revise([select_pseudo_labels(f, keep, drop) for f in found], pool, iteration=0)
    tally = judge.tally
    assert (tally.images, tally.closed_images) == (5, 2)
    # Of classes 0, 1, 0, 1: boxes on the clean surface are gated, those that are none dropped.
    assert tally.gated.tolist() == [2, 2]
    assert tally.boxes.tolist() == [[1, 0], [1, 1], [2, 3]]
    assert tally.seen.tolist() == [6, 6]
    line = tally.line(CLASSES)
    assert 'kept/down-weighted/dropped/gated: dent 6: 1/1/2/2, spot 6: 0/1/3/2' in line
    assert '2 of 5 images skipped as normal surface' in line
    scalars = tally.scalars(CLASSES)
    assert scalars['clip_filter/gated_spot'] == pytest.approx(2 / 5)
    assert scalars['clip_filter/closed_images'] == pytest.approx(2 / 5)
    restored, total = FilterCounts(2), FilterCounts(2)
    restored.load_state_dict(tally.state_dict())
    for counts in (restored, tally):
        total.add(counts)
    assert total.seen.tolist() == [12, 12] and total.gated.tolist() == [4, 4]


def test_too_few_calibration_images_for_a_veto_are_told(images):
    judge = make_filter()
    judge.crops.veto.min_images = 13
    judge.fit(predictions(12), images, truths(12))
    assert not judge.crops.veto.counts
    told = [line for line in judge.report_lines() if 'turns down no foreign image' in line]
    assert len(told) == 1 and 'on 12 calibration images' in told[0]


SCORERS = [
    dict(evidence='text'),
    dict(evidence='prototypes'),
    dict(evidence='both'),
]


@pytest.mark.parametrize('options', SCORERS, ids=lambda options: options['evidence'])
@pytest.mark.parametrize('known', [False, True])
def test_a_scorer_that_knows_nothing_has_no_say_in_anything(tiny_data, options, known, monkeypatch):
    """Neither class nor extent, veto or gate; whatever it stands on, and whoever judged it."""
    split = tiny_data / 'annotations/40pct_seed0'
    labelled = dict(ann_file=str(split / 'burn_in.json'), images_dir=str(tiny_data / 'images'))
    held_out = str(split / 'calibration.json')
    wanted = dict(classes=CLASSES, model=TINY_CLIP, **options)
    if known or options['evidence'] != 'text':
        wanted['prototypes'] = dict(**labelled, held_out_file=held_out)
    # Where features are the same for all crops, nobody can tell them apart.
    if not known:
        monkeypatch.setattr(
            CropEncoder, 'encode', lambda self, crops: torch.full((len(crops), 8), 8**-0.5)
        )
    else:
        monkeypatch.setattr(
            scorer_module, 'judge', lambda p, n: HeldOutQuality(len(n), 0.9, 0.1, True)
        )
    judge = build_filter(
        CLASSES, dict(type='mmdsym.CLIPScorer', **wanted), labelled, gate=dict(threshold=0.9)
    )
    assert (judge.crops.evidence is None) == (judge.gate is None) == (not known)
    assert (judge.crops.veto is None) == (not known)
    if not known:
        monkeypatch.setattr(CropEncoder, 'encode', None)
        found = predictions(2)
        samples = [SimpleNamespace(img_path='never read', ori_shape=(SIZE, SIZE))] * 2
        for of_image, scores in zip(found, judge(found, samples), strict=True):
            torch.testing.assert_close(scores, of_image.scores)


def test_labelled_crops_are_learnt_where_the_scorer_computes():
    class Scorer(BrightnessScorer):
        def to(self, device):
            self.at = device
            return self

        def prepare(self):
            self.prepared_at = self.at

    assert build_scorer(Scorer(), CLASSES, 'cuda').prepared_at == 'cuda'


class Ranks:
    """Runs a function as two ranks, in threads that exchange objects."""

    def __init__(self, monkeypatch) -> None:
        self.local, self.barrier = threading.local(), threading.Barrier(2, timeout=60)
        self.slots = [None, None]
        modules = (filter_module, fit_together, box_opinion, crop_opinion, foreign_veto)
        for module in modules:
            monkeypatch.setattr(module, 'all_gather_object', self.gather)
        monkeypatch.setattr(fit_together, 'get_rank', lambda: self.local.rank)

    def gather(self, value):
        self.slots[self.local.rank] = value
        self.barrier.wait()
        both = list(self.slots)
        self.barrier.wait()
        return both

    def run(self, functions) -> list:
        results = [None, None]

        def work(rank):
            self.local.rank = rank
            results[rank] = functions[rank]()

        threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


@pytest.mark.parametrize('cut', [5, 12])
def test_all_ranks_learn_the_same_from_all_images(images, monkeypatch, cut):
    found, true = predictions(12), truths(12)
    more = LabelledPredictions(predictions(12, seed=3), images, true)
    alone = make_filter(gate=ImageGate(), context=True)
    expected = alone.fit(found, images, true, more)
    judges = [make_filter(gate=ImageGate(), context=True) for _ in range(2)]
    parts = (slice(0, cut), slice(cut, 12))
    ranks = Ranks(monkeypatch)
    scores = ranks.run(
        [
            lambda judge=judge, part=part: judge.fit(
                found[part],
                images[part],
                true[part],
                LabelledPredictions(*(field[part] for field in more)),
            )
            for judge, part in zip(judges, parts, strict=True)
        ]
    )
    for one, other in zip(scores[0] + scores[1], expected, strict=True):
        torch.testing.assert_close(one, other)
    for judge in judges:
        assert judge.gate.threshold == alone.gate.threshold
        assert judge.crops.floor == alone.crops.floor and judge.crops.veto.limits == pytest.approx(
            alone.crops.veto.limits
        )
        for part in ('boxes', 'crops'):
            state = getattr(judge, part).fusion.state_dict()
            for name, value in getattr(alone, part).fusion.state_dict().items():
                torch.testing.assert_close(state[name], value)


def test_boxes_of_training_images_help_at_all_later_calibrations(images):
    judge, other = make_filter(context=True), make_filter(context=True)
    more = LabelledPredictions(predictions(12, seed=3), images, truths(12))
    judge.fit(predictions(12), images, truths(12), more)
    assert len(judge.state_dict()['boxes']['further']['labels']) == 48
    other.load_state_dict(judge.state_dict())
    for again in (judge, other):
        again.fit(predictions(12, seed=5), images, truths(12))
    for name, value in judge.boxes.fusion.state_dict().items():
        torch.testing.assert_close(
            other.boxes.fusion.state_dict()[name], value, rtol=1e-4, atol=1e-5
        )
    assert judge.wants_further and not make_filter().wants_further


def test_only_the_best_boxes_of_an_image_are_shown_to_clip():
    crops = make_filter(max_boxes=2).crops
    crops.floor = 0.3
    first = torch.tensor([0.2, 0.9, 0.4, 0.5])
    assert crops.choose(first).tolist() == [False, True, False, True]
    assert crops.choose(torch.tensor([0.2, 0.1, 0.4, 0.0])).tolist() == [0, 0, 1, 0]
    assert crops.choose(first[:0]).tolist() == []


def kept_boxes(scores) -> PseudoLabels:
    boxes = torch.arange(len(scores))[:, None] * 100.0 + torch.tensor([[0.0, 0, 20, 20]])
    kept = InstanceData(
        bboxes=boxes, scores=torch.tensor(scores), labels=torch.zeros(len(scores)).long()
    )
    return PseudoLabels(kept, kept[:0], kept[:0])


def test_boxes_take_part_as_often_as_they_weigh():
    labels = kept_boxes([1.0, 0.75, 0.25, 0.0])
    rounds = 600
    stayed = torch.zeros(4)
    for iteration in range(rounds):
        drawn = draw_by_weight(labels, np.random.default_rng((0, iteration)))
        stayed[(drawn.kept.bboxes[:, 0] / 100).long()] += 1
        assert len(drawn.kept) + len(drawn.uncertain) == 4 and not len(drawn.dropped)
    share = stayed / rounds
    assert share[0] == 1 and share[3] == 0
    torch.testing.assert_close(share[1:3], torch.tensor([0.75, 0.25]), atol=0.06, rtol=0)


def test_a_box_that_sits_out_silences_no_other():
    kept = InstanceData(
        bboxes=torch.tensor([[0.0, 0, 20, 20], [2, 2, 18, 18]]),
        scores=torch.tensor([0.0, 1.0]),
        labels=torch.zeros(2).long(),
    )
    drawn = draw_by_weight(PseudoLabels(kept, kept[:0], kept[:0]), np.random.default_rng(0))
    assert len(drawn.kept) == len(drawn.dropped) == 1 and not len(drawn.uncertain)


def test_what_became_of_boxes_is_counted(images):
    judge = make_filter(mode='soft')
    found = predictions(1)
    found[0].scores = judge(found, images[:1])[0]
    found[0].scores[:2] = torch.tensor([1.0, 0.0])
    labels = PseudoLabels(found[0][:2], found[0][2:3], found[0][3:])
    revised = judge.revise([labels], images[:1], iteration=3)[0]
    assert len(revised.kept) == 1
    assert judge.tally.boxes.tolist() == [[1, 0], [1, 1], [0, 1]]
    line = judge.tally.line(CLASSES)
    assert 'dent 2: 1/1/0, spot 2: 0/1/1' in line and 'teacher' in line
    scalars = judge.tally.scalars(CLASSES)
    assert scalars['clip_filter/down_weighted_spot'] == 1
    sheet = draw_filter_sheet(
        judge.kept_examples, judge.dropped_examples, CLASSES, judge.embedder.read
    )
    assert sheet.ndim == 3 and sheet.std() > 0
    assert draw_filter_sheet([], [], CLASSES, judge.embedder.read) is None


def test_evidence_and_veto_share_the_scores_of_the_same_crops():
    scorer = BrightnessScorer()
    asked = []
    score = scorer.score_features
    scorer.score_features = lambda *crops: asked.append(len(crops[1])) or score(*crops)
    once = ScoredOnce(scorer)
    features, labels = torch.rand(3, 4), torch.tensor([0, 1, 1])
    for _ in range(2):
        expected = score(features, labels).agreement
        torch.testing.assert_close(once.agreement(features.clone(), labels), expected)
    assert asked == [3]
    for others in ((features + 1, labels), (features + 1, 1 - labels), (features[:2], labels[:2])):
        torch.testing.assert_close(once.agreement(*others), score(*others).agreement)
    assert len(asked) == 4


def test_images_are_read_with_as_many_channels_as_they_need(images, tmp_path):
    colour = tmp_path / 'colour.png'
    Image.fromarray(np.full((5, 6, 3), (10, 20, 30), np.uint8)).save(colour)
    embedder = make_filter().embedder
    for _ in range(2):
        grey = embedder.read(images[0].img_path)
        assert grey.shape == (1, SIZE, SIZE)
        np.testing.assert_array_equal(grey[0], np.asarray(Image.open(images[0].img_path)))
        assert embedder.read(str(colour))[:, 0, 0].tolist() == [10, 20, 30]
        # What is done to it must not reach the cache.
        grey.zero_()


def test_a_state_of_other_evidence_is_refused():
    state = make_filter().state_dict()
    for other in (make_filter(asks=False), make_filter(context=True)):
        with pytest.raises(UserError, match='other evidence or classes'):
            other.load_state_dict(state)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="no mode 'sofft'"):
        CLIPPseudoLabelFilterHook(dict(), dict(), mode='sofft')
    with pytest.raises(UserError, match="no mode 'mild'"):
        CLIPPseudoLabelFilterHook(dict(), dict(), schedule=dict(joint='mild'))
    with pytest.raises(UserError, match='max_boxes=0'):
        make_filter(max_boxes=0)


STAGES = dict(
    burn_in=dict(begin=0, end=1, images=dict(labelled=2)),
    joint=dict(
        begin=1,
        end=7,
        images=dict(labelled=2, unlabelled=4),
        # Every box of an untrained teacher is kept, so that the filter alone decides.
        thresholds=dict(keep=0.0, drop=0.0),
    ),
    refine=dict(begin=7, end=8, images=dict(labelled=1, unlabelled=2), thresholds=dict(keep=0.0)),
)


@pytest.fixture
def filtered_run(tiny_run, tiny_data):  # noqa: F811
    def build(work_dir, mode='soft', better_than_chance=True, **options):
        runner = tiny_run(work_dir, **{'default_hooks.checkpoint.interval': 4}, **options)
        runner._train_loop['stages'] = STAGES
        runner._val_loop = runner._val_dataloader = runner._val_evaluator = None
        split = tiny_data / 'annotations/40pct_seed0'
        hook = CLIPPseudoLabelFilterHook(
            BrightnessScorer(better_than_chance=better_than_chance),
            dict(ann_file=str(split / 'burn_in.json'), images_dir=str(tiny_data / 'images')),
            mode=mode,
            schedule=dict(refine='off'),
            # So that a fit on the boxes of an untrained teacher counts.
            fusion=dict(min_right=1, min_wrong=1, min_gain=-1.0),
            gate=dict(threshold=0.0),
            interval=2,
            sheet_interval=4,
        )
        runner.register_hook(hook)
        return runner, hook

    return build


def test_a_resumed_run_makes_the_same_pseudo_labels(filtered_run, tmp_path, monkeypatch):
    # Boxes of an untrained teacher are all wrong: every other one is declared right.
    monkeypatch.setattr(
        filter_module,
        'judge_detections',
        lambda boxes, *_: SimpleNamespace(correct=np.arange(len(boxes)) % 2 == 0),
    )
    whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
    runner, hook = filtered_run(whole)
    runner.train()
    log = next(whole.glob('*/*.log')).read_text()
    assert 'CLIP filter, boxes seen' in log and 'Fusion of' in log
    unsupervised = [line for line in scalars(whole) if 'unsup_loss_cls' in line]
    assert len(unsupervised) >= 4, 'pseudo-labels that never teach prove nothing'
    assert list(whole.glob('*/vis_data/vis_image/clip_filter*.png'))
    assert runner.model.scorer is None, 'the mode of the last stage is off'
    assert hook.filter.embedder.memory.used_bytes > 0
    state = torch.load(whole / 'iter_4.pth', weights_only=True)['clip_filter']
    assert state['fits'] == 1 and bool(state['boxes']['fusion']['fitted'])

    resumed.mkdir()
    again, other = filtered_run(resumed, load_from=str(whole / 'iter_4.pth'), resume=True)
    again.train()
    first, second = losses(whole), losses(resumed)
    assert sorted(second) == [5, 6, 7, 8]
    for step, loss in second.items():
        assert loss == pytest.approx(first[step], rel=1e-4), step
    for name, value in hook.filter.tally.state_dict().items():
        np.testing.assert_allclose(other.filter.tally.state_dict()[name], value, rtol=1e-3)
    one = torch.load(whole / 'iter_8.pth', weights_only=True)
    two = torch.load(resumed / 'iter_8.pth', weights_only=True)
    assert one['clip_filter']['memory']['images'] == two['clip_filter']['memory']['images']
    torch.testing.assert_close(
        one['clip_filter']['memory']['boxes'],
        two['clip_filter']['memory']['boxes'],
        atol=1e-2,
        rtol=0,
    )


def test_useless_clip_says_so_and_off_builds_nothing(filtered_run, tmp_path):
    runner, hook = filtered_run(tmp_path / 'useless', better_than_chance=False)
    runner._train_loop['stages'] = STAGES
    train_loop = runner.build_train_loop(runner._train_loop)
    runner._train_loop = train_loop
    hook.before_train(runner)
    assert hook.filter.crops.evidence is None and hook.filter.gate is None
    log = next((tmp_path / 'useless').glob('*/*.log')).read_text()
    assert log.count('CLIP takes itself out of the filter') == 1
    off = CLIPPseudoLabelFilterHook(dict(type='never built'), dict(), mode='off')
    off.before_train(runner)
    off.before_train_iter(runner, 0)
    assert off.filter is None and runner.model.scorer is None
    unknown = CLIPPseudoLabelFilterHook(dict(), dict(), schedule=dict(jiont='soft'))
    with pytest.raises(UserError, match="did you mean 'joint'"):
        unknown.before_train(runner)
