"""Accepts synthetic defects that CLIP recognises."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from mmengine.logging import print_log

from mmdsym.clip.scorer import CLIPScorer
from mmdsym.errors import UserError
from mmdsym.evaluation.held_out_quality import is_better_than_chance
from mmdsym.registry import ACCEPTANCE_TESTS


@ACCEPTANCE_TESTS.register_module()
class CLIPAcceptance:
    """Accepts a region whose class is the one that CLIP thinks likeliest.

    Compared with the other classes and with a normal surface, so that there is no number to tune. A
    scorer that is no better than chance on held-out crops takes itself out: all is accepted.

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

        self._told = False

    @property
    def fingerprint(self) -> str:
        """That of the scorer, unless it has taken itself out."""
        return self.scorer.fingerprint if self._knows_the_classes() else 'accepts all'

    def accept(
        self, images: Sequence[np.ndarray], boxes: np.ndarray, labels: np.ndarray
    ) -> np.ndarray:
        """Says for each region whether it shows a defect of its class; see ``AcceptanceTest``."""
        if not len(labels):
            return np.zeros(0, dtype=bool)
        if not self._knows_the_classes():
            return np.ones(len(labels), dtype=bool)
        scores = self.scorer.score(
            [torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1) for image in images],
            [torch.as_tensor(box, dtype=torch.float32)[None] for box in boxes],
            [torch.tensor([label]) for label in labels],
        )
        likeliest = [int(score.distribution[0].argmax()) for score in scores]
        return np.array(likeliest) == np.asarray(labels)

    def _knows_the_classes(self) -> bool:
        self.scorer.prepare()
        knows = is_better_than_chance(self.scorer)
        if not knows and not self._told:
            print_log(
                'CLIP takes itself out of the acceptance of synthetic defects, since it is no '
                'better than chance on held-out crops: all are accepted.',
                logger='current',
                level=logging.WARNING,
            )
            self._told = True
        return knows
