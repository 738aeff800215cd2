"""Paints layouts: in batches over many images, whose sizes change nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from .accept import AcceptanceTest
from .labelled_images import LabelledImage, LabelledImages
from .layout import ImageLayout, Operation, painting_seed
from .synthesiser import PaintingTask, Synthesiser, seam_width


@dataclass(frozen=True)
class SyntheticBox:
    """A box of a synthetic image.

    Attributes:
        box: x1, y1, x2, y2 in pixels.
        label: Class index.
        ignored: Whether it is marked as a crowd.
        painted: Kind of the operation that painted it, ``None`` for what was there before.
        size: ``small``, ``medium`` or ``large`` where it was painted.
    """

    box: tuple[float, float, float, float]
    label: int
    ignored: bool = False
    painted: str | None = None
    size: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of one operation.

    Attributes:
        label: Class index.
        rejected: How many attempts the acceptance test turned down.
        given_up: Whether all of them, so that the image stayed as it was.
    """

    label: int
    rejected: int
    given_up: bool


@dataclass(frozen=True, eq=False)
class SyntheticImage:
    """A finished image.

    Attributes:
        index: Its number.
        source: Index of the labelled image that it was made from.
        pixels: (H, W, 3), uint8, RGB.
        boxes: Every box on it, old and new.
        outcomes: One for each operation of its layout.
    """

    index: int
    source: int
    pixels: np.ndarray
    boxes: tuple[SyntheticBox, ...]
    outcomes: tuple[Outcome, ...]


def labelled_boxes(image: LabelledImage) -> list[SyntheticBox]:
    """Returns what a synthetic image shows before anything is painted into it."""
    columns = image.boxes.tolist(), image.labels.tolist(), image.ignored.tolist()
    return [
        SyntheticBox(tuple(box), label, ignored)
        for box, label, ignored in zip(*columns, strict=True)
    ]


def put_box(boxes: list[SyntheticBox], operation: Operation) -> None:
    """Adds what an operation has painted, in place of what it replaces."""
    box = SyntheticBox(operation.box, operation.label, painted=operation.kind, size=operation.size)
    if operation.replaces is None:
        boxes.append(box)
    else:
        boxes[operation.replaces] = box


class Painter:
    """Paints layouts with a synthesiser, and again what an acceptance test rejects.

    What is rejected ``max_attempts`` times is given up: a labelled defect then stays, a new one
    is left out, so that the labels say what the image shows.

    Args:
        images: The labelled images that the layouts refer to.
        synthesiser: Paints.
        accept: Judges each painted region; ``None`` takes all.
        seed: From which the seed of each attempt follows.
        max_attempts: Attempts for each operation, from 1.
        batch_size: Regions painted at once; each belongs to another image.
    """

    def __init__(
        self,
        images: LabelledImages,
        synthesiser: Synthesiser,
        accept: AcceptanceTest | None = None,
        seed: int = 0,
        max_attempts: int = 3,
        batch_size: int = 16,
    ) -> None:
        self.images = images
        self.synthesiser = synthesiser
        self.accept = accept
        self.seed = seed
        self.max_attempts = max_attempts
        self.batch_size = batch_size

    def paint(self, layouts: Iterable[ImageLayout]) -> Iterator[SyntheticImage]:
        """Yields each layout's image as soon as it is finished, in no particular order."""
        waiting = iter(layouts)
        canvases: list[_Canvas] = []
        while True:
            while len(canvases) < self.batch_size and (layout := next(waiting, None)) is not None:
                canvases.append(_Canvas.begin(layout, self.images))
            yield from (canvas.finish() for canvas in canvases if canvas.operation is None)
            canvases = [canvas for canvas in canvases if canvas.operation is not None]
            if canvases:
                self._paint_round(canvases)
            elif layout is None:
                return

    def _paint_round(self, canvases: list[_Canvas]) -> None:
        """Tries the present operation of each image once."""
        painted = self.synthesiser.paint([self._task(canvas) for canvas in canvases])
        accepted = np.ones(len(canvases), dtype=bool)
        if self.accept is not None:
            boxes = np.array([canvas.operation.box for canvas in canvases])
            labels = np.array([canvas.operation.label for canvas in canvases])
            accepted = self.accept.accept(painted, boxes, labels)
        for canvas, pixels, good in zip(canvases, painted, accepted, strict=True):
            canvas.judge(pixels, bool(good), self.max_attempts)

    def _task(self, canvas: _Canvas) -> PaintingTask:
        operation = canvas.operation
        x1, y1, x2, y2 = operation.box
        width = seam_width(operation.box)
        reference, seam = self.images.crop(
            operation.reference, (width / (x2 - x1), width / (y2 - y1))
        )
        return PaintingTask(
            image=canvas.pixels,
            box=operation.box,
            label=operation.label,
            seed=painting_seed(
                self.seed, canvas.layout.index, len(canvas.outcomes), canvas.rejected
            ),
            reference=reference,
            strength=operation.strength,
            seam=seam,
        )


@dataclass(eq=False)
class _Canvas:
    """An image on which some operations are done and others wait."""

    layout: ImageLayout
    pixels: np.ndarray
    boxes: list[SyntheticBox]
    outcomes: list[Outcome] = field(default_factory=list)
    rejected: int = 0

    @classmethod
    def begin(cls, layout: ImageLayout, images: LabelledImages) -> _Canvas:
        boxes = labelled_boxes(images[layout.source])
        return cls(layout, images.pixels(layout.source), boxes)

    @property
    def operation(self) -> Operation | None:
        """The one that is due."""
        done = len(self.outcomes)
        return self.layout.operations[done] if done < len(self.layout.operations) else None

    def judge(self, pixels: np.ndarray, accepted: bool, max_attempts: int) -> None:
        operation = self.operation
        if accepted:
            self.pixels = pixels
            put_box(self.boxes, operation)
        else:
            self.rejected += 1
        if accepted or self.rejected >= max_attempts:
            self.outcomes.append(Outcome(operation.label, self.rejected, not accepted))
            self.rejected = 0

    def finish(self) -> SyntheticImage:
        return SyntheticImage(
            self.layout.index,
            self.layout.source,
            self.pixels,
            tuple(self.boxes),
            tuple(self.outcomes),
        )
