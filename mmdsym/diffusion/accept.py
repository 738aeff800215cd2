"""Which synthetic regions are good enough to train on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class AcceptanceTest(Protocol):
    """Judges painted regions. Registered in ``mmdsym.registry.ACCEPTANCE_TESTS``."""

    @property
    def fingerprint(self) -> str:
        """Changes when, and only when, the same regions would be judged differently."""

    def accept(
        self, images: Sequence[np.ndarray], boxes: np.ndarray, labels: np.ndarray
    ) -> np.ndarray:
        """Says for each region whether it shows a defect of its class.

        Args:
            images: N images of shape (H, W, 3), uint8, RGB; one may occur several times.
            boxes: (N, 4), x1 y1 x2 y2 in pixels, one region of each image.
            labels: (N,), class indices.

        Returns:
            (N,), bool.
        """
