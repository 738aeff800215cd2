"""Accepts what a classifier of real crops finds as typical of its class as real defects."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from mmengine.logging import print_log

from mmdsym.errors import UserError
from mmdsym.evaluation.held_out_quality import is_better_than_chance
from mmdsym.registry import ACCEPTANCE_TESTS

from .crop_classifier import CropClassifier
from .crop_features import CropFeatures
from .labelled_images import read_labelled_images
from .synthesiser import CLEAN_SURFACE

FORMAT = 2
"""Raised whenever the same settings accept something else."""


@ACCEPTANCE_TESTS.register_module()
class CropClassifierAcceptance:
    """Accepts regions whose class :class:`CropClassifier` recognises.

    By default the bar is set by the data, class by class: accepted is what gets a probability
    of its class that all but the lowest ``quantile`` of the real crops get as well, each judged
    by a classifier that had not seen its image. It never falls below chance, so that few labels
    do not let everything pass. A class without a labelled box is never accepted.

    A classifier that is no better than chance on real crops it had not seen takes itself out: it
    would reject at random. All is then accepted, whatever the bar.

    Args:
        dataset: Config of the labelled data set to learn from.
        quantile: Share of the real crops that lies below the bar, in [0, 1).
        min_probability: One bar for every class, in [0, 1], in place of ``quantile``.
        cache_file: See :class:`CropClassifier`.
        features: Settings of :class:`mmdsym.diffusion.crop_features.CropFeatures`; by default
            those of the classifier.

    Raises:
        UserError: A number is out of range, or there is no labelled box.
    """

    def __init__(
        self,
        dataset: Mapping,
        quantile: float = 0.1,
        min_probability: float | None = None,
        cache_file: str | None = None,
        features: Mapping | None = None,
    ) -> None:
        if not 0 <= quantile < 1:
            raise UserError(f'quantile of the acceptance test is {quantile}: give one in [0, 1).')
        if min_probability is not None and not 0 <= min_probability <= 1:
            raise UserError(f'min_probability is {min_probability}: give one in [0, 1].')
        self.quantile = quantile
        self.min_probability = min_probability
        self.classifier = CropClassifier(
            read_labelled_images(dataset),
            cache_file,
            None if features is None else CropFeatures(**features),
        )

    @property
    def fingerprint(self) -> str:
        """Of the classifier, of the bar, and of how the two decide."""
        bar = self.quantile if self.min_probability is None else None
        return json.dumps([FORMAT, self.classifier.fingerprint, bar, self.min_probability])

    def threshold(self, label: int) -> float:
        """Returns the smallest probability of its class with which a region is accepted.

        Args:
            label: Class index, or ``CLEAN_SURFACE``.
        """
        column = len(self.classifier.names) - 1 if label == CLEAN_SURFACE else label
        real = self.classifier.own_probabilities(column)
        if not len(real):
            return np.inf
        if self.min_probability is not None:
            return self.min_probability
        return max(float(np.quantile(real, self.quantile)), 1 / len(self.classifier.names))

    def accept(
        self, images: Sequence[np.ndarray], boxes: np.ndarray, labels: np.ndarray
    ) -> np.ndarray:
        """Says for each region whether it shows a defect of its class; see ``AcceptanceTest``."""
        labels = np.asarray(labels, dtype=int)
        if not self._knows_the_classes:
            return np.ones(len(labels), dtype=bool)
        probabilities = self.classifier.probabilities(images, boxes)
        # CLEAN_SURFACE is -1 and thereby the last column.
        own = probabilities[np.arange(len(labels)), labels]
        bars = {label: self.threshold(label) for label in np.unique(labels).tolist()}
        return own >= np.array([bars[label] for label in labels.tolist()])

    @cached_property
    def _knows_the_classes(self) -> bool:
        knows = is_better_than_chance(self.classifier)
        if not knows:
            quality = self.classifier.held_out
            print_log(
                'The crop classifier takes itself out of the acceptance of synthetic defects, '
                f'since it is no better than chance on {quality.crops} held-out crops '
                f'({quality.accuracy:.1%} right): all are accepted; give it more labelled images.',
                logger='current',
                level=logging.WARNING,
            )
        return knows
