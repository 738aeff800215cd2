"""What a source holds, before anything is written: images, boxes and the problems found."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mmdsym.tiling import Tiling

DAMAGED = 'damaged image'
UNREADABLE = 'unreadable annotation'
WITHOUT_IMAGE = 'annotation without image'
SECOND_ANNOTATION = 'second annotation'
UNKNOWN_CLASS = 'unknown class'
EMPTY_BOX = 'box of zero size'
OUTSIDE = 'box outside the image'
DUPLICATE = 'duplicate across splits'
PROBLEM_KINDS = (
    DAMAGED,
    UNREADABLE,
    WITHOUT_IMAGE,
    SECOND_ANNOTATION,
    UNKNOWN_CLASS,
    EMPTY_BOX,
    OUTSIDE,
    DUPLICATE,
)


@dataclass(frozen=True, slots=True)
class Box:
    """One annotated defect.

    Args:
        x1: Left edge in pixels; 0 is the left edge of the leftmost pixel.
        y1: Top edge in pixels; 0 is the top edge of the topmost pixel.
        x2: Right edge in pixels; the image width is the right edge of the rightmost pixel.
        y2: Bottom edge in pixels.
        label: Class name.
        ignore: Whether neither training nor evaluation shall count it (COCO `iscrowd`).
    """

    x1: float
    y1: float
    x2: float
    y2: float
    label: str
    ignore: bool = False

    @property
    def width(self) -> float:
        """Width in pixels."""
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        """Height in pixels."""
        return self.y2 - self.y1

    @property
    def area(self) -> float:
        """Area in square pixels."""
        return self.width * self.height


@dataclass(frozen=True)
class TileOrigin:
    """Where a tile was cut.

    Args:
        image: Name of its image.
        x: Where its left edge lies in the image, in pixels.
        y: Where its top edge lies.
    """

    image: str
    x: int
    y: int


@dataclass
class SourceImage:
    """One image of a source, with its boxes.

    Args:
        path: The file.
        name: Path below `images/` in the prepared data set, with forward slashes.
        boxes: Its boxes; empty for an image without defect.
        split: `'train'`, `'val'`, `'test'`, or None when the source does not say.
        stratum: The class that the source files the image under, if any; used to stratify.
        annotation: The file its boxes come from, or None when it has none.
        declared_size: (width, height) that the annotation claims, or None.
        width: True width in pixels, as loaded for training; 0 until inspected.
        height: True height in pixels; 0 until inspected.
        file_hash: SHA-256 of the file; empty until inspected.
        pixel_hash: SHA-256 of the decoded pixels; empty until inspected or when damaged.
        brightest: Largest value of a pixel of 16 bits; None for images of fewer.
        known_good: Whether a person said that it has no defect.
        label_source: Where its labels come from, such as `'human'` or `'corrected'`; empty where
            nobody said.
        tile: Where it was cut, if it is a tile.
    """

    path: Path
    name: str
    boxes: list[Box] = field(default_factory=list)
    split: str | None = None
    stratum: str | None = None
    annotation: Path | None = None
    declared_size: tuple[int, int] | None = None
    width: int = 0
    height: int = 0
    file_hash: str = ''
    pixel_hash: str = ''
    brightest: int | None = None
    known_good: bool = False
    label_source: str = ''
    tile: TileOrigin | None = None

    @property
    def stem(self) -> str:
        """File name without folder and extension."""
        return self.path.stem

    @property
    def labels(self) -> set[str]:
        """The classes that occur in the image."""
        return {box.label for box in self.boxes}


@dataclass(frozen=True)
class Problem:
    """Something that would spoil a run.

    Args:
        kind: One of `PROBLEM_KINDS`.
        file: The file at fault.
        message: What is wrong, without the file's name.
        cure: What the user can do.
        image: Name of the image that cannot be used because of it; empty when none is concerned
            or when only single boxes of it are at fault.
    """

    kind: str
    file: Path
    message: str
    cure: str
    image: str = ''

    def __str__(self) -> str:
        return f'{self.file}: {self.message}; {self.cure}'


@dataclass
class Source:
    """A data set as it was found.

    Args:
        layout: Name of the layout it was read as.
        root: Folder that it was read from.
        classes: Class names; their order gives the category ids.
        images: Its images, in any order.
        problems: What was found wrong while reading.
        notes: Facts a user should know, one sentence each.
        unlabelled: Extra images that never had labels.
        images_without_annotation: How many images came without any annotation.
        paper_labelled: Names of the labelled images of the published split, when it is used.
        tiling: How images were cut, where they are tiles.
        whole: The held-out images that tiles were cut from.
    """

    layout: str
    root: Path
    classes: list[str]
    images: list[SourceImage]
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unlabelled: list[SourceImage] = field(default_factory=list)
    images_without_annotation: int = 0
    paper_labelled: set[str] | None = None
    tiling: Tiling | None = None
    whole: list[SourceImage] = field(default_factory=list)

    def in_split(self, split: str) -> list[SourceImage]:
        """The images of one split, sorted by name."""
        return sorted((i for i in self.images if i.split == split), key=lambda i: i.name)
