"""Accepts synthetic defects that CLIP recognises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from mmdsym.clip.scorer import CLIPScorer
from mmdsym.errors import UserError
from mmdsym.registry import ACCEPTANCE_TESTS


@ACCEPTANCE_TESTS.register_module()
class CLIPAcceptance:
    """Accepts a region whose class is the one that CLIP thinks likeliest.

    Compared with the other classes and with a normal surface, so that there is no number to tune.

    Args:
        scorer: Arguments of :class:`mmdsym.CLIPScorer`.
        classes: Class names of the data, in the order of their labels.

    Raises:
        UserError: The scorer knows other classes.
    """

    def __init__(self, scorer: Mapping, classes: Sequence[str]) -> None:
        self.scorer = CLIPScorer(**scorer)
        if tuple(self.scorer.classes) != tuple(classes):
            raise UserError(
                f'the CLIP scorer knows the classes {tuple(self.scorer.classes)}, but the data '
                f'have {tuple(classes)}: adapt it to these data.'
            )

    @property
    def fingerprint(self) -> str:
        """That of the scorer."""
        return self.scorer.fingerprint

    def accept(
        self, images: Sequence[np.ndarray], boxes: np.ndarray, labels: np.ndarray
    ) -> np.ndarray:
        """Says for each region whether it shows a defect of its class; see ``AcceptanceTest``."""
        if not len(labels):
            return np.zeros(0, dtype=bool)
        scores = self.scorer.score(
            [torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1) for image in images],
            [torch.as_tensor(box, dtype=torch.float32)[None] for box in boxes],
            [torch.tensor([label]) for label in labels],
        )
        likeliest = [int(score.distribution[0].argmax()) for score in scores]
        return np.array(likeliest) == np.asarray(labels)
