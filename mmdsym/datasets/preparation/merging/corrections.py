"""Labels that come back from an annotation program, whatever wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmdsym.datasets.preparation.merging.comparing import same_boxes
from mmdsym.datasets.preparation.merging.finding import ImageFinder
from mmdsym.datasets.preparation.records import (
    SECOND_ANNOTATION,
    UNREADABLE,
    WITHOUT_IMAGE,
    Box,
    Problem,
    SourceImage,
)

LEAVE_OUT = 'correct the entry, or let --fix leave out its image'
IGNORE = 'correct or remove the entry, or let --fix ignore it'


@dataclass
class Corrections:
    """What an export says about the images of a data set.

    Args:
        finder: Finds the images of the data set.
        boxes: Name of an image to its boxes; without any, the image has no defect.
        problems: What is wrong with the export.
        submitted: Names of the images whose labels a person is known to have submitted.
    """

    finder: ImageFinder
    boxes: dict[str, list[Box]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    submitted: set[str] = field(default_factory=set)

    def find(
        self, file: Path, reference: str, size: tuple[int, int] | None = None
    ) -> SourceImage | None:
        """Finds an image; where that fails, notes the problem and returns None.

        Args:
            file: The file that speaks of it.
            reference: How it names the image.
            size: (width, height) that it claims; another one means another image.
        """
        try:
            image = self.finder.find(reference)
        except LookupError as error:
            cure = 'name the export of images of this data set, or let --fix ignore the entry'
            self.problems.append(Problem(WITHOUT_IMAGE, file, str(error.args[0]), cure))
            return None
        if size is not None and size != (image.width, image.height):
            message = (
                f'image {reference} has {size[0]}x{size[1]} pixels there, {image.width}x'
                f'{image.height} in the data set'
            )
            self.problems.append(Problem(WITHOUT_IMAGE, file, message, IGNORE))
            return None
        return image

    def add(self, file: Path, image: SourceImage, boxes: Sequence[Box]) -> None:
        """Takes the boxes of an image; other ones for the same image are a problem."""
        known = self.boxes.setdefault(image.name, list(boxes))
        if not same_boxes(known, boxes):
            message = f'image {image.name} has {len(known)} boxes once and {len(boxes)} others'
            self.problems.append(
                Problem(SECOND_ANNOTATION, file, message, 'keep one of the two', image.name)
            )

    def spoil(self, file: Path, image: SourceImage, reason: str) -> None:
        """Notes that an image's labels cannot be read."""
        message = f'image {image.name}: {reason}'
        self.problems.append(Problem(UNREADABLE, file, message, LEAVE_OUT, image.name))
