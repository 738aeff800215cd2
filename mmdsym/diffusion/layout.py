"""What is painted where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from mmengine.logging import print_log

from mmdsym.errors import UserError
from mmdsym.free_space import covered_share, find_free_box

from .class_boxes import ClassBoxes, avoids, measure_class, spoils_nothing
from .labelled_images import LabelledImages, Reference
from .layout_config import KINDS, LayoutConfig
from .size_distribution import BUCKETS

_SOURCES_TRIED = 12
_REFERENCES_TRIED = 3
_PLACES_TRIED = 12
_TIMES_CORRECTED = 3
_SIMILAR_REFERENCES = 8


@dataclass(frozen=True)
class Operation:
    """One defect that is painted into an image.

    Attributes:
        kind: One of ``KINDS``.
        label: Class index.
        size: One of ``BUCKETS``.
        box: x1, y1, x2, y2 in pixels, inside the image; whole numbers but for ``repaint``.
        reference: The labelled defect that it starts from.
        strength: How far it may leave the reference, in (0, 1].
        replaces: Index of the labelled box that it takes the place of, for ``repaint``.
    """

    kind: str
    label: int
    size: str
    box: tuple[float, float, float, float]
    reference: Reference
    strength: float
    replaces: int | None = None


@dataclass(frozen=True)
class ImageLayout:
    """One synthetic image to be.

    Attributes:
        index: Its number.
        source: Index of the labelled image that it is made from.
        operations: What is painted into it, in this order.
    """

    index: int
    source: int
    operations: tuple[Operation, ...]


@dataclass(frozen=True)
class _Wish:
    kind: str
    label: int
    bucket: int


class LayoutPlanner:
    """Lays out synthetic images.

    The layout of an image depends on the seed, its number, the labelled boxes, and how bright and
    rich in contrast the labelled images are. Class and size of each new defect are drawn first;
    then a labelled image is looked for that has room for all of an image's defects. Where none of
    a dozen has, ``add`` and ``repaint`` stand in for one another, so that class and size shares
    stay what they are declared to be; a defect that still finds no place is left out.

    Args:
        images: The labelled images.
        config: The shares and limits.
        seed: Of all random choices, from 0.

    Raises:
        UserError: No class has a labelled box.
    """

    def __init__(self, images: LabelledImages, config: LayoutConfig, seed: int) -> None:
        self.images = images
        self.config = config
        self.seed = seed
        measured = {
            label: measure_class(images, label, config) for label in range(len(images.classes))
        }
        self.classes = {label: boxes for label, boxes in measured.items() if boxes is not None}
        self._name_absent_classes()
        self._labels = np.array(list(self.classes))
        self._class_shares = self._balanced_shares()
        weights = np.array([config.kinds.get(kind, 0.0) for kind in KINDS])
        self._kind_shares = weights / weights.sum()
        self._surfaces = {label: self._surfaces_of(label) for label in self.classes}

    def plan(self, index: int) -> ImageLayout:
        """Lays out the synthetic image with this number, from 0."""
        generator = np.random.default_rng((self.seed, index))
        foreign = generator.random() < self.config.foreign_surface
        wishes = self._draw_wishes(generator, foreign)
        best: tuple[int, list[Operation | None]] | None = None
        for _ in range(2):
            for source in self._draw_sources(generator, wishes[0], foreign):
                fitted = self._fit(generator, source, wishes)
                if best is None or _filled(fitted) > _filled(best[1]):
                    best = (source, fitted)
                if all(fitted):
                    break
            if best is not None and all(best[1]):
                break
            missed = [True] * len(wishes) if best is None else [not entry for entry in best[1]]
            wishes = [
                _stand_in(wish) if miss else wish for wish, miss in zip(wishes, missed, strict=True)
            ]
        source, fitted = best or (int(generator.integers(len(self.images))), [])
        return ImageLayout(index, source, tuple(entry for entry in fitted if entry))

    def plan_all(self, count: int) -> list[ImageLayout]:
        """Lays out ``count`` images, and says in one line what came out."""
        layouts = [self.plan(index) for index in range(count)]
        kinds = Counter(entry.kind for layout in layouts for entry in layout.operations)
        shown = ', '.join(f'{kinds[kind]} {kind}' for kind in KINDS)
        print_log(f'Layout of {count} synthetic images: {shown}.', logger='current')
        return layouts

    def _name_absent_classes(self) -> None:
        absent = [
            name for label, name in enumerate(self.images.classes) if label not in self.classes
        ]
        if not self.classes:
            raise UserError(
                f'none of the {len(self.images)} labelled images has a box, so that there is '
                'nothing to synthesise: prepare the data with a larger label fraction, or leave '
                'out the synthetic images.'
            )
        if absent:
            print_log(
                f'No defects are synthesised of {", ".join(absent)}: not one box is labelled so.',
                logger='current',
            )

    def _balanced_shares(self) -> np.ndarray:
        counts = np.array([len(self.classes[label].boxes) for label in self._labels], dtype=float)
        balance = self.config.class_balance
        return (1 - balance) * counts / counts.sum() + balance / len(counts)

    def _surfaces_of(self, label: int) -> np.ndarray:
        """Images on which new defects of a class look at home."""
        fits = [not len(image.labels) or label in image.labels for image in self.images]
        return np.flatnonzero(fits)

    def _draw_wishes(self, generator: np.random.Generator, foreign: bool) -> list[_Wish]:
        low, high = self.config.defects_per_image
        wishes: list[_Wish] = []
        for _ in range(generator.integers(low, high + 1)):
            # At home, all defects of an image are of one class: few images show several.
            label = wishes[0].label if wishes and not foreign else self._draw_label(generator)
            kind = KINDS[generator.choice(len(KINDS), p=self._kind_shares)]
            wishes.append(_Wish(kind, label, self.classes[label].sizes.draw_bucket(generator)))
        return wishes

    def _draw_label(self, generator: np.random.Generator) -> int:
        return int(generator.choice(self._labels, p=self._class_shares))

    def _draw_sources(
        self, generator: np.random.Generator, wish: _Wish, foreign: bool
    ) -> Iterator[int]:
        """Labelled images that may suit the first defect."""
        if wish.kind == 'repaint':
            boxes = self.classes[wish.label]
            suitable = boxes.images[boxes.repaintable & boxes.fits[wish.bucket]]
        else:
            suitable = np.arange(len(self.images)) if foreign else self._surfaces[wish.label]
        for _ in range(_SOURCES_TRIED if len(suitable) else 0):
            yield int(generator.choice(suitable))

    def _fit(
        self, generator: np.random.Generator, source: int, wishes: Sequence[_Wish]
    ) -> list[Operation | None]:
        """Fulfils the wishes on one image; ``None`` where one finds no place."""
        fitted: list[Operation | None] = []
        for wish in wishes:
            placed = [entry for entry in fitted if entry]
            fulfil = self._repaint if wish.kind == 'repaint' else self._add
            fitted.append(fulfil(generator, source, wish, placed))
        return fitted

    def _repaint(
        self,
        generator: np.random.Generator,
        source: int,
        wish: _Wish,
        placed: Sequence[Operation],
    ) -> Operation | None:
        boxes = self.classes[wish.label]
        chosen = boxes.repaintable & boxes.fits[wish.bucket] & (boxes.images == source)
        for entry in placed:
            chosen &= boxes.positions != entry.replaces
        added, limit = _added(placed), self.config.max_covered
        size = self.images[source].size
        spares = [
            index
            for index in np.flatnonzero(chosen)
            if spoils_nothing(boxes.boxes[index], added, size, limit)
        ]
        if not spares:
            return None
        index = int(generator.choice(spares))
        reference = self._reference(generator, boxes, index)
        if generator.random() >= self.config.own_reference:
            reference = self._similar_reference(generator, boxes, index)
        return self._operation(
            generator,
            wish,
            boxes.boxes[index],
            reference,
            replaces=int(boxes.positions[index]),
        )

    def _similar_reference(
        self, generator: np.random.Generator, boxes: ClassBoxes, index: int
    ) -> Reference:
        """Another labelled defect that fits into the box without much stretching."""
        transposed = self._transposes(generator)
        ratios = 1 / boxes.ratios if transposed else boxes.ratios
        distance = np.abs(np.log(ratios / boxes.ratios[index]))
        others = np.delete(np.arange(len(distance)), index) if len(distance) > 1 else [index]
        others = self._on_similar_surface(boxes, np.asarray(others), int(boxes.images[index]))
        nearest = others[np.argsort(distance[others], kind='stable')[:_SIMILAR_REFERENCES]]
        return self._reference(generator, boxes, int(generator.choice(nearest)), transposed)

    def _on_similar_surface(
        self, boxes: ClassBoxes, indices: np.ndarray, source: int
    ) -> np.ndarray:
        """Those boxes whose images are most like the source in brightness and contrast."""
        own = self.images.surfaces[source]
        distance = np.abs(self.images.surfaces[boxes.images[indices]] - own).sum(axis=1)
        count = max(_SIMILAR_REFERENCES, round(self.config.similar_surfaces * len(indices)))
        return indices[np.argsort(distance, kind='stable')[:count]]

    def _add(
        self,
        generator: np.random.Generator,
        source: int,
        wish: _Wish,
        placed: Sequence[Operation],
    ) -> Operation | None:
        boxes = self.classes[wish.label]
        suitable = self._on_similar_surface(boxes, _references_for(boxes, wish), source)
        taken = np.concatenate([self.images[source].boxes, _added(placed)])
        size = self.images[source].size
        crowds = self.images[source].boxes[self.images[source].ignored]
        for _ in range(_REFERENCES_TRIED):
            index = int(generator.choice(suitable))
            transposed = self._transposes(generator)
            box_size = self._box_size(generator, boxes, index, transposed, wish.bucket, size)
            box = box_size and self._find_place(generator, size, box_size, taken, crowds)
            if box is not None:
                reference = self._reference(generator, boxes, index, transposed)
                return self._operation(generator, wish, box, reference)
        return None

    def _box_size(
        self,
        generator: np.random.Generator,
        boxes: ClassBoxes,
        index: int,
        transposed: bool,
        bucket: int,
        image_size: tuple[int, int],
    ) -> tuple[int, int] | None:
        """Width and height with the shape of a labelled box and a size out of a bucket."""
        ratio = 1 / boxes.ratios[index] if transposed else boxes.ratios[index]
        drawn = boxes.sizes.draw_size(generator, bucket)
        # A long box may fit only at the smaller sizes of its bucket.
        limit = min(image_size[0] / ratio**0.5, image_size[1] * ratio**0.5)
        lowest = boxes.sizes.borders[bucket]
        if limit < lowest * (1 - 1e-9):
            return None
        size = min(drawn, limit)
        width, height = round(size * ratio**0.5), round(size / ratio**0.5)
        return min(max(1, width), image_size[0]), min(max(1, height), image_size[1])

    def _find_place(
        self,
        generator: np.random.Generator,
        image_size: tuple[int, int],
        box_size: tuple[int, int],
        taken: np.ndarray,
        crowds: np.ndarray,
    ) -> np.ndarray | None:
        """A free box on whole pixels; it leaves crowds as they are, whatever the config allows."""
        limit = self.config.max_covered
        for _ in range(_TIMES_CORRECTED):
            found = find_free_box(
                generator, image_size, box_size, taken, limit, tries=_PLACES_TRIED
            )
            if found is None:
                return None
            corner = np.floor(found[:2])
            box = np.concatenate([corner, corner + box_size])
            spares = spoils_nothing(box, taken, image_size, limit)
            if spares and covered_share(box, taken) <= limit and avoids(box, crowds, image_size):
                return box
        return None

    def _transposes(self, generator: np.random.Generator) -> bool:
        return bool(generator.random() < 0.5 and self.config.transposes)

    def _reference(
        self,
        generator: np.random.Generator,
        boxes: ClassBoxes,
        index: int,
        transposed: bool = False,
    ) -> Reference:
        mirrored = tuple(bool(chosen) for chosen in generator.random(2) < 0.5)
        return Reference(
            image=int(boxes.images[index]),
            box=tuple(boxes.boxes[index].tolist()),
            mirrored=mirrored if self.config.flips else (False, False),
            transposed=transposed,
        )

    def _operation(
        self,
        generator: np.random.Generator,
        wish: _Wish,
        box: np.ndarray,
        reference: Reference,
        replaces: int | None = None,
    ) -> Operation:
        return Operation(
            kind=wish.kind,
            label=wish.label,
            size=BUCKETS[wish.bucket],
            box=tuple(box.tolist()),
            reference=reference,
            strength=float(generator.uniform(*self.config.strength)),
            replaces=replaces,
        )


def _references_for(boxes: ClassBoxes, wish: _Wish) -> np.ndarray:
    """Labelled boxes that a new one may start from: of its size, or of another to be rescaled."""
    same = boxes.fits[wish.bucket]
    suitable = np.flatnonzero(~same if wish.kind == 'rescale' else same)
    return suitable if len(suitable) else np.arange(len(same))


def _added(placed: Sequence[Operation]) -> np.ndarray:
    """Boxes, (N, 4), that the image has beside its labelled ones."""
    return np.reshape([entry.box for entry in placed if entry.replaces is None], (-1, 4))


def _stand_in(wish: _Wish) -> _Wish:
    return replace(wish, kind='add' if wish.kind == 'repaint' else 'repaint')


def _filled(fitted: Sequence[Operation | None]) -> int:
    return sum(entry is not None for entry in fitted)


def painting_seed(seed: int, image: int, position: int, attempt: int) -> int:
    """Returns the seed with which one operation of one image is painted, in [0, 2**32)."""
    return int(np.random.SeedSequence((seed, image, position, attempt)).generate_state(1)[0])
