"""Where synthetic defects are laid out."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdsym.diffusion.class_boxes import spoils_nothing
from mmdsym.diffusion.labelled_images import LabelledImage, LabelledImages
from mmdsym.diffusion.layout import LayoutPlanner, painting_seed
from mmdsym.diffusion.layout_config import LayoutConfig, parse_layout
from mmdsym.diffusion.painting import Painter
from mmdsym.diffusion.size_distribution import BUCKETS, SizeDistribution, box_sizes
from mmdsym.diffusion.synthesiser import repaint_region
from mmdsym.errors import UserError
from mmdsym.free_space import covered_share


def labelled_image(boxes, labels, size=(100, 100)) -> LabelledImage:
    boxes = np.array(boxes, dtype=float).reshape(-1, 4)
    labels = np.array(labels, dtype=int)
    return LabelledImage('none.png', size, boxes, labels, np.zeros(len(labels), dtype=bool))


class PlainImages(LabelledImages):
    """Images without files, each a little brighter than the one before."""

    def pixels(self, index: int) -> np.ndarray:
        width, height = self.images[index].size
        return np.full((height, width, 3), 2 * index, dtype=np.uint8)


def labelled_images(*images, classes=('dent', 'spot')) -> LabelledImages:
    return PlainImages([labelled_image(*image) for image in images], classes)


def planner(images, seed=0, **config) -> LayoutPlanner:
    return LayoutPlanner(images, LayoutConfig(**config), seed)


@st.composite
def data_sets(draw) -> LabelledImages:
    """Images of any size with boxes anywhere, of one pixel up to the whole image."""
    images = []
    for _ in range(draw(st.integers(1, 4))):
        width, height = draw(st.integers(1, 120)), draw(st.integers(1, 120))
        boxes = []
        for _ in range(draw(st.integers(0, 4))):
            box_width, box_height = draw(st.integers(1, width)), draw(st.integers(1, height))
            x = draw(st.floats(0, width - box_width))
            y = draw(st.floats(0, height - box_height))
            boxes.append((x, y, x + box_width, y + box_height))
        labels = [draw(st.integers(0, 1)) for _ in boxes]
        images.append((boxes, labels, (width, height)))
    images.append(([(1, 1, 2, 2)], [0], (5, 5)))
    return labelled_images(*images)


@settings(max_examples=25)
@given(data_sets(), st.integers(0, 5), st.sampled_from([0.0, 0.05, 0.3]), st.booleans())
def test_boxes_lie_inside_and_spoil_nothing(images, seed, max_covered, transposes):
    plan = planner(
        images,
        seed,
        max_covered=max_covered,
        defects_per_image=(1, 3),
        transposes=transposes,
        foreign_surface=0.5,
    )
    for index in range(4):
        layout = plan.plan(index)
        image = images[layout.source]
        present = list(image.boxes)
        replaced = [entry.replaces for entry in layout.operations if entry.replaces is not None]
        assert len(replaced) == len(set(replaced))
        for entry in layout.operations:
            box = np.array(entry.box)
            assert 0 <= box[0] < box[2] <= image.size[0]
            assert 0 <= box[1] < box[3] <= image.size[1]
            if entry.replaces is not None:
                assert box.tolist() == image.boxes[entry.replaces].tolist()
                assert entry.label == image.labels[entry.replaces]
                others = np.delete(image.boxes, entry.replaces, axis=0)
                assert spoils_nothing(box, others, image.size, max_covered)
            else:
                assert (box == box.round()).all()
                assert covered_share(box, np.reshape(present, (-1, 4))) <= max_covered
                assert spoils_nothing(box, np.reshape(present, (-1, 4)), image.size, max_covered)
                present.append(box)
            source = images[entry.reference.image]
            assert entry.reference.box in [tuple(known) for known in source.boxes.tolist()]


class Inverting:
    """Changes every pixel that a synthesiser may, and keeps what it did."""

    def __init__(self) -> None:
        self.fingerprint = 'inverting'
        self.changed: list[np.ndarray] = []

    def paint(self, tasks):
        images = []
        for task in tasks:
            height, width = task.image.shape[:2]
            left, top, right, bottom = repaint_region(task.box, (width, height))
            image = task.image.copy()
            image[top:bottom, left:right] ^= 255
            self.changed.append((image != task.image).any(axis=2))
            images.append(image)
        return images


def changed_share(changed: np.ndarray, box) -> float:
    """Share of a box's area in which pixels, (H, W), changed."""
    x1, y1, x2, y2 = box
    columns, rows = np.arange(changed.shape[1]), np.arange(changed.shape[0])
    across = (np.minimum(x2, columns + 1) - np.maximum(x1, columns)).clip(min=0)
    down = (np.minimum(y2, rows + 1) - np.maximum(y1, rows)).clip(min=0)
    return float(down @ changed @ across) / ((x2 - x1) * (y2 - y1))


@settings(max_examples=40)
@given(data_sets(), st.integers(0, 5), st.sampled_from([0.0, 0.05, 0.3]))
def test_not_even_a_seam_changes_more_of_other_boxes_than_is_allowed(images, seed, max_covered):
    plan = planner(images, seed, max_covered=max_covered, defects_per_image=(1, 4))
    for index in range(4):
        layout = plan.plan(index)
        synthesiser = Inverting()
        list(Painter(images, synthesiser).paint([layout]))
        present = dict(enumerate(map(tuple, images[layout.source].boxes)))
        for entry, changed in zip(layout.operations, synthesiser.changed, strict=True):
            for position, box in present.items():
                if position != entry.replaces:
                    assert changed_share(changed, box) <= max_covered + 1e-9
            if entry.replaces is None:
                present[len(present)] = entry.box


def test_boxes_whose_seams_reach_into_each_other_stay():
    apart, near = (10.0, 10.0, 30.0, 30.0), (33.0, 10.0, 53.0, 30.0)
    far = (35.0, 10.0, 55.0, 30.0)
    for neighbour, repainted in ((near, True), (far, True), ((31.0, 10.0, 51.0, 30.0), False)):
        images = labelled_images(([apart, neighbour], [0, 0], (60, 40)))
        plan = planner(images, max_covered=0.0, kinds=dict(repaint=1), defects_per_image=(1, 1))
        found = [entry for index in range(10) for entry in plan.plan(index).operations]
        assert any(entry.kind == 'repaint' for entry in found) == repainted


def spacious() -> LabelledImages:
    """Large images with few boxes of many sizes: there is room for everything."""
    generator = np.random.default_rng(0)
    images = []
    for _ in range(60):
        boxes, labels = [], []
        label = int(generator.random() < 0.2)
        for column in range(2):
            width, height = generator.uniform(8, 60, 2)
            x = 150 * column + generator.uniform(0, 60)
            y = generator.uniform(0, 240)
            boxes.append((x, y, x + width, y + height))
            labels.append(label)
        images.append((boxes, labels, (300, 300)))
    return labelled_images(*images)


@pytest.mark.parametrize('balance', [0.0, 0.5, 1.0])
def test_declared_shares_come_out(balance):
    images = spacious()
    sizes = dict(small=0.6, medium=0.3, large=0.1)
    kinds = dict(repaint=0.2, add=0.3, rescale=0.5)
    plan = planner(images, sizes=sizes, kinds=kinds, class_balance=balance)
    layouts = [plan.plan(index) for index in range(400)]
    found = [entry for layout in layouts for entry in layout.operations]
    # Two standard deviations of the rarest share, twice over, since an image's defects share
    # their class.
    tolerance = 0.07
    labelled = np.mean([image.labels[0] for image in images])
    wanted = (1 - balance) * labelled + balance / 2
    assert np.mean([entry.label for entry in found]) == pytest.approx(wanted, abs=tolerance)
    counted = Counter(entry.size for entry in found)
    for name, share in sizes.items():
        assert counted[name] / len(found) == pytest.approx(share, abs=tolerance)
    counted = Counter(entry.kind for entry in found)
    for name, share in kinds.items():
        assert counted[name] / len(found) == pytest.approx(share, abs=tolerance)


def test_sizes_lie_in_their_buckets_and_shapes_follow_the_class():
    images = spacious()
    plan = planner(images, kinds=dict(add=1, rescale=1))
    for index in range(60):
        for entry in plan.plan(index).operations:
            box = np.array(entry.box)
            measured = plan.classes[entry.label]
            low, high = measured.sizes.borders[BUCKETS.index(entry.size) :][:2]
            size = float(box_sizes(box[None])[0])
            # A box lies on whole pixels.
            assert low - 1.5 <= size <= high + 1.5
            reference = np.array(entry.reference.box)
            of_that_size = low <= float(box_sizes(reference[None])[0]) <= high
            assert of_that_size == (entry.kind == 'add')
            width, height = box[2:] - box[:2]
            ratio = (reference[2] - reference[0]) / (reference[3] - reference[1])
            assert abs(width - height * ratio) <= 1 + ratio


def test_layouts_follow_from_seed_and_number():
    images = spacious()
    first, again = planner(images, seed=3), planner(images, seed=3)
    assert first.plan(7) == again.plan(7)
    assert [again.plan(index) for index in (9, 7)][1] == first.plan(7)
    assert planner(images, seed=4).plan(7) != first.plan(7)
    seeds = {painting_seed(0, *place) for place in np.ndindex(20, 3, 3)}
    assert len(seeds) == 180


def test_an_absent_class_is_named_once_and_skipped(log):
    images = labelled_images(([(5, 5, 20, 20)], [1]), classes=('dent', 'spot', 'crack'))
    plan = planner(images)
    lines = [record.message for record in log.records if 'not one box' in record.message]
    assert len(lines) == 1 and 'dent, crack' in lines[0]
    operations = [entry for index in range(20) for entry in plan.plan(index).operations]
    assert {entry.label for entry in operations} == {1}


def test_nothing_labelled_is_an_error():
    with pytest.raises(UserError, match='none of the 2 labelled images has a box'):
        planner(labelled_images(([], []), ([], [])))


def test_boxes_of_one_pixel():
    images = labelled_images(([(50, 50, 51, 51)], [0], (60, 60)))
    plan = planner(images, defects_per_image=(2, 2))
    kinds = set()
    for index in range(30):
        for entry in plan.plan(index).operations:
            x1, y1, x2, y2 = entry.box
            assert (x2 - x1, y2 - y1) == (1, 1)
            kinds.add(entry.kind)
    assert kinds == {'repaint', 'add', 'rescale'}


def test_where_a_box_fills_the_image_only_repainting_is_left():
    images = labelled_images(([(0, 0, 30, 40)], [0], (30, 40)))
    plan = planner(images, kinds=dict(add=1), defects_per_image=(1, 1))
    for index in range(5):
        (entry,) = plan.plan(index).operations
        assert entry.kind == 'repaint' and entry.box == (0, 0, 30, 40)


def test_images_without_boxes_only_get_new_ones():
    images = labelled_images(([(0, 0, 30, 30)], [0], (30, 30)), ([], [], (90, 90)))
    plan = planner(images, kinds=dict(add=1))
    for index in range(5):
        layout = plan.plan(index)
        assert layout.source == 1 and layout.operations
        assert all(entry.replaces is None for entry in layout.operations)


def test_ignored_boxes_are_neither_painted_nor_copied():
    image = labelled_image([(5, 5, 25, 25), (60, 60, 90, 90)], [0, 0])
    image.ignored[1] = True
    plan = planner(PlainImages([image], ('dent', 'spot')))
    for index in range(30):
        for entry in plan.plan(index).operations:
            assert entry.reference.box == (5, 5, 25, 25)
            assert covered_share(np.array(entry.box), image.boxes[1:]) <= 0.05


@given(
    st.lists(st.floats(1, 1000), min_size=1, max_size=30),
    st.integers(0, 2),
    st.integers(0, 2**32 - 1),
)
def test_drawn_sizes_stay_between_the_borders(sizes, bucket, seed):
    distribution = SizeDistribution(sizes, dict.fromkeys(BUCKETS, 1.0))
    drawn = distribution.draw_size(np.random.default_rng(seed), bucket)
    low, high = distribution.borders[bucket : bucket + 2]
    assert low * (1 - 1e-9) <= drawn <= high * (1 + 1e-9)
    assert {distribution.bucket_of(size) for size in sizes} <= {0, 1, 2}


def test_references_are_mirrored_and_transposed_as_asked():
    images = spacious()
    for flips, transposes in ((True, True), (False, False)):
        plan = planner(images, flips=flips, transposes=transposes)
        operations = [entry for index in range(40) for entry in plan.plan(index).operations]
        assert any(any(entry.reference.mirrored) for entry in operations) == flips
        assert any(entry.reference.transposed for entry in operations) == transposes


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (dict(kind=dict(add=1)), "unknown 'kind': did you mean 'kinds'"),
        (dict(kinds=dict(ad=1)), "layout.kinds has an unknown 'ad': did you mean 'add'"),
        (dict(sizes=dict(small=0)), 'layout.sizes is .*at least one above'),
        (dict(sizes=dict(small=-1, large=2)), 'layout.sizes is .*shares from 0'),
        (dict(class_balance=2), 'layout.class_balance is 2: .*between 0 and 1'),
        (dict(strength=(0, 1)), 'layout.strength begins at 0'),
        (dict(strength=(0.9, 0.1)), 'layout.strength is .*between 0 and 1'),
        (dict(defects_per_image=(0, 2)), 'layout.defects_per_image'),
        (dict(defects_per_image=(1, 1.5)), 'two whole numbers'),
        (dict(defects_per_image=2), 'layout.defects_per_image is 2: give two numbers'),
        (dict(strength=0.3), 'layout.strength is 0.3: give two numbers'),
        (dict(strength='weak'), 'layout.strength is weak: give two numbers'),
        (dict(kinds=['add']), 'layout.kinds is .*give the shares of'),
        (dict(sizes=dict(small='many')), 'layout.sizes is .*shares from 0'),
    ],
)
def test_wrong_layouts_are_named(config, message):
    with pytest.raises(UserError, match=message):
        parse_layout(config)


def test_layouts_that_mean_the_same_are_the_same():
    assert parse_layout(None).to_dict() == parse_layout(dict(strength=[0.6, 1.0])).to_dict()
    assert (
        parse_layout(dict(sizes=dict(small=2, large=2))).to_dict()
        == parse_layout(dict(sizes=dict(small=1, medium=0, large=1))).to_dict()
    )


@pytest.mark.parametrize('kind', ['repaint', 'add'])
def test_references_come_from_surfaces_like_the_one_to_paint_in(kind):
    images = labelled_images(*([[(10, 10, 30, 30)], [0]] for _ in range(100)))
    plan = planner(images, kinds={kind: 1}, own_reference=0.0, similar_surfaces=0.1)
    distances = [
        abs(entry.reference.image - layout.source)
        for layout in map(plan.plan, range(40))
        for entry in layout.operations
        if entry.kind == kind
    ]
    assert len(distances) > 20
    # Ten of a hundred; at the ends of the row they all lie on one side.
    assert max(distances) <= 11


def test_no_new_defect_touches_a_crowd_and_none_starts_from_it():
    crowd = (0.0, 0.0, 100.0, 60.0)
    boxes = [crowd, (10, 50, 30, 70), (60, 70, 80, 90)]
    image = labelled_image(boxes, [0, 0, 0])
    image.ignored[0] = True
    images = PlainImages([image], ('dent',))
    plan = planner(images, max_covered=1.0, defects_per_image=(1, 3))
    operations = [entry for index in range(60) for entry in plan.plan(index).operations]
    assert {entry.kind for entry in operations} >= {'add', 'repaint'}
    assert {entry.replaces for entry in operations} == {None, 2}
    for entry in operations:
        region = repaint_region(entry.box, image.size)
        assert covered_share(np.array(region), np.array([crowd])) == 0
        assert entry.reference.box != crowd
