"""CLIP's word on what a detector finds, where a run has a CLIP model."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import nn

from mmdsym.clip.filter_building import build_scorer
from mmdsym.clip.labelled_crops import read_rgb
from mmdsym.evaluation.held_out_quality import is_better_than_chance

from .worth import NO_DOUBT, Doubt, clip_disagreement

MOST_BOXES = 4
"""Boxes of an image that CLIP is asked about, the surest ones."""


def scorer_of(config: Config) -> dict | None:
    """Returns the config of a run's CLIP scorer; ``None`` where it has none."""
    for hook in config.get('custom_hooks') or []:
        if str(hook.get('type', '')).split('.')[-1] == 'CLIPPseudoLabelFilterHook':
            return hook['scorer']
    return None


class SecondOpinion:
    """Asks CLIP about boxes.

    Args:
        scorer: Config of a scorer, or one.
        classes: Class names of the detector.

    Attributes:
        is_useful: False where held-out crops have shown that it knows nothing.
    """

    def __init__(self, scorer: dict | nn.Module, classes: tuple[str, ...]) -> None:
        self._scorer = build_scorer(scorer, classes)
        self.is_useful = is_better_than_chance(self._scorer)

    @torch.no_grad()
    def doubt(self, path: Path, found: InstanceData) -> Doubt:
        """Returns how far CLIP disagrees with the surest boxes of an image."""
        surest = found[found.scores.argsort(descending=True)[:MOST_BOXES]]
        if not len(surest):
            return NO_DOUBT
        (features,) = self._scorer.embed([read_rgb(path)], [surest.bboxes])
        scores = self._scorer.score_features(features, surest.labels)
        return clip_disagreement(surest, scores.agreement.cpu())
