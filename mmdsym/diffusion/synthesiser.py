"""What everything that paints defects has in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from .labelled_images import LabelledImages

CLEAN_SURFACE = -1
"""Label of a region that is to show no defect."""


@dataclass(frozen=True)
class PaintingTask:
    """One region of one image that is to be repainted.

    Attributes:
        image: (H, W, 3), uint8, RGB; a grey image has three equal channels.
        box: x1, y1, x2, y2 in pixels, inside the image: where the new defect is to lie.
        label: Index of its class, or :data:`CLEAN_SURFACE`.
        seed: Of this task alone: the same task with the same seed gives the same pixels, whatever
            other tasks are painted with it.
        reference: (h, w, 3), uint8, RGB: pixels of a labelled defect of the class that the new one
            starts from, brought to the size of the box; ``None`` starts from noise.
        strength: How far the result may leave the reference, in (0, 1]; 1 ignores it.
        seam: How many columns of the reference on its left and right, and how many rows above and
            below, show the surface around its defect; the rest is brought to the size of the box.
    """

    image: np.ndarray
    box: tuple[float, float, float, float]
    label: int
    seed: int
    reference: np.ndarray | None = None
    strength: float = 1.0
    seam: tuple[int, int] = (0, 0)

    @property
    def defect(self) -> np.ndarray:
        """The reference without its seam."""
        rows, columns = self.reference.shape[:2]
        return self.reference[
            self.seam[1] : rows - self.seam[1], self.seam[0] : columns - self.seam[0]
        ]


class Synthesiser(Protocol):
    """Paints defects into images. Registered in ``mmdsym.registry.SYNTHESISERS``."""

    @property
    def fingerprint(self) -> str:
        """Changes when, and only when, the same tasks would be painted differently."""

    def paint(self, tasks: Sequence[PaintingTask]) -> list[np.ndarray]:
        """Returns each task's image with its region repainted.

        Same shape and type as ``task.image``; outside of ``repaint_region(task.box, ...)`` not one
        pixel differs. Tasks are independent of each other, and run in batches.
        """


@runtime_checkable
class ChecksImages(Protocol):
    """A synthesiser that cannot paint into every image, and says so before it begins."""

    def check_images(self, images: LabelledImages) -> None:
        """Looks at the images that are to be painted into.

        Raises:
            UserError: It cannot paint into them.
        """


def seam_width(box: tuple[float, float, float, float], margin: float = 0.1) -> float:
    """Returns how far painting a box may reach beyond it, in pixels.

    Args:
        box: x1, y1, x2, y2 in pixels.
        margin: In units of the box's shorter side; at least 2 pixels.
    """
    return max(2.0, margin * min(box[2] - box[0], box[3] - box[1]))


def repaint_region(
    box: tuple[float, float, float, float], image_size: tuple[int, int], margin: float = 0.1
) -> tuple[int, int, int, int]:
    """Returns the pixels that painting a box may change: the box with a seam around it.

    Args:
        box: x1, y1, x2, y2 in pixels.
        image_size: (width, height) in pixels.
        margin: Width of the seam, as :func:`seam_width` takes it.

    Returns:
        left, top, right, bottom as slice bounds, inside the image.
    """
    x1, y1, x2, y2 = box
    seam = seam_width(box, margin)
    width, height = image_size
    return (
        max(0, int(np.floor(x1 - seam))),
        max(0, int(np.floor(y1 - seam))),
        min(width, int(np.ceil(x2 + seam))),
        min(height, int(np.ceil(y2 + seam))),
    )
