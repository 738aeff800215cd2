"""The gate of the DSYM paper: whole images that show a normal surface teach nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mmdsym.errors import UserError


class ImageGate:
    """Closes for images that CLIP takes for a normal surface (arXiv 2507.05588).

    The paper looks at the whole image. A small defect is easily lost there, so tiles of it may be
    looked at too: the image counts as normal when all of them do.

    Args:
        threshold: Probability of a defect below which an image is skipped, in [0, 1]; ``None``
            calibrates it.
        passed_share: Share of the calibration images with defects that a calibrated gate lets
            pass, in (0, 1].
        tiles: Tiles along each side of the image, besides the image itself; 1 for none.

    Raises:
        UserError: Impossible values.
    """

    def __init__(
        self, threshold: float | None = None, passed_share: float = 0.98, tiles: int = 1
    ) -> None:
        if (threshold is not None and not 0 <= threshold <= 1) or not 0 < passed_share <= 1:
            raise UserError(
                f'the image gate cannot have threshold={threshold} and passed_share='
                f'{passed_share}: give probabilities.'
            )
        if tiles < 1:
            raise UserError(f'the image gate cannot cut {tiles} tiles a side: give 1 or more.')
        self.calibrates = threshold is None
        self.threshold = 0.0 if threshold is None else threshold
        self.passed_share = passed_share
        self.tiles = tiles

    def windows(self, width: int, height: int) -> Tensor:
        """Returns what to look at: the image, then its tiles by rows, (K, 4), x1 y1 x2 y2."""
        whole = [[0.0, 0.0, float(width), float(height)]]
        if self.tiles == 1:
            return torch.tensor(whole)
        x, y = np.linspace(0, width, self.tiles + 1), np.linspace(0, height, self.tiles + 1)
        steps = range(self.tiles)
        parts = [[x[i], y[j], x[i + 1], y[j + 1]] for j in steps for i in steps]
        return torch.tensor(whole + parts, dtype=torch.float32)

    def defect_probability(self, background: Tensor) -> float:
        """Returns the image's probability of a defect from its windows' ones of a normal surface.

        Args:
            background: (K,), in [0, 1], in the order of :meth:`windows`.
        """
        return 1.0 - float(background.min())

    def fit(self, probabilities: Sequence[float]) -> None:
        """Sets the threshold from images with defects; a given threshold stays.

        Args:
            probabilities: Of a defect, one for each image; without any, all images pass.
        """
        if not self.calibrates:
            return
        self.threshold = (
            float(np.quantile(probabilities, 1 - self.passed_share, method='lower'))
            if len(probabilities)
            else 0.0
        )

    def admits(self, probability: float) -> bool:
        """Says whether an image with this probability of a defect passes."""
        return probability >= self.threshold

    def state_dict(self) -> dict[str, float]:
        """Returns the threshold."""
        return {'threshold': self.threshold}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Takes over a calibrated threshold; a given one stays."""
        if self.calibrates:
            self.threshold = float(state['threshold'])
