"""Which unlabelled images are worth a label most."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn
from tqdm import tqdm

from mmdsym.errors import UserError
from mmdsym.trained_run import TrainedRun
from mmdsym.visualization.detections import thresholds_of

from .image_list import ListedImage
from .looking import Look, Observer
from .novelty import FeatureSpace
from .reasons import (
    DETECTOR_CLIP,
    NEAR_THRESHOLD,
    TEACHER_STUDENT,
    explain,
    usual_values,
)
from .second_opinion import SecondOpinion, scorer_of
from .selection import Choice, select
from .worth import Doubt, closeness, disagreement


@dataclass(frozen=True)
class Suggestion:
    """An image that should be labelled.

    Attributes:
        rank: From 1.
        image: The image.
        size: (width, height) in pixels.
        score: What its label is worth, in [0, 1].
        novelty: How new it is beside labelled images and those suggested before, in [0, 1].
        doubts: Parts of :data:`mmdsym.labelling.reasons.PARTS`, each in [0, 1].
        reason: The same in words.
        boxes: Pre-labels: ``bboxes`` (N, 4) in pixels, ``scores`` and ``labels`` (N,).
    """

    rank: int
    image: ListedImage
    size: tuple[int, int]
    score: float
    novelty: float
    doubts: dict[str, float]
    reason: str
    boxes: InstanceData


@dataclass(frozen=True)
class Suggestions:
    """What to label next.

    Attributes:
        classes: Class names.
        model: Name of the run that looked at the images.
        images: Best first.
        looked_at: Number of images to choose from.
        left_out: What could not be taken into account, one sentence each.
    """

    classes: tuple[str, ...]
    model: str
    images: list[Suggestion]
    looked_at: int
    left_out: list[str] = field(default_factory=list)


def suggest(
    run: TrainedRun,
    images: list[ListedImage],
    labelled: list[ListedImage],
    count: int,
    scorer: dict | nn.Module | None = None,
    score_threshold: float | None = None,
) -> Suggestions:
    """Ranks unlabelled images by what labelling them is worth.

    Args:
        run: A teacher-student run or a plain detector.
        images: The unlabelled images.
        labelled: The labelled ones, of which nothing but the pixels is used; may be empty.
        count: Most images to suggest, from 1.
        scorer: A CLIP scorer or its config; by default the run's own, if it has one.
        score_threshold: Score from which a box becomes a pre-label; by default
            :func:`mmdsym.visualization.detections.thresholds_of`.

    Raises:
        UserError: An image cannot be read, or the run is not what its config says.
    """
    if count < 1:
        raise UserError(f'--count {count} leaves nothing to suggest: give at least 1.')
    observer = Observer(run)
    opinion, left_out = _second_opinion(run, scorer)
    if observer.student is None:
        left_out.append('This run has no teacher and student that could disagree.')
    if not labelled:
        left_out.append('Without a list of labelled images, novelty is that among suggestions.')
    keep, drop = _thresholds(run)
    looks = [observer.look(image.path) for image in _shown(images, 'looking')]
    doubts = [
        _doubts(look, keep, drop, opinion, image.path)
        for image, look in zip(images, looks, strict=True)
    ]
    known = [observer.feature(image.path) for image in _shown(labelled, 'looking at labelled')]
    features = torch.stack([look.feature for look in looks])
    space = FeatureSpace(features, torch.stack(known) if known else features[:0])
    doubt = torch.tensor([_mean(parts) for parts in doubts])
    threshold = thresholds_of(run, score_threshold)
    usual = usual_values(doubts)
    return Suggestions(
        classes=run.classes,
        model=f'{run.config_path.stem}/{run.checkpoint_path.stem}',
        images=[
            _suggestion(rank, choice, images, looks, doubts, usual, threshold, run.classes)
            for rank, choice in enumerate(select(space, doubt, count), start=1)
        ],
        looked_at=len(images),
        left_out=left_out,
    )


def _shown(images: list[ListedImage], what: str) -> tqdm:
    return tqdm(images, desc=what, unit='image', disable=None)


def _second_opinion(
    run: TrainedRun, scorer: dict | nn.Module | None
) -> tuple[SecondOpinion | None, list[str]]:
    scorer = scorer_of(run.config) if scorer is None else scorer
    if scorer is None:
        return None, ['This run has no CLIP model: name one with --clip to ask it, too.']
    opinion = SecondOpinion(scorer, run.classes)
    if not opinion.is_useful:
        return None, ['CLIP is no better than chance on held-out crops and was not asked.']
    return opinion, []


def _thresholds(run: TrainedRun) -> tuple[Tensor, Tensor]:
    """Scores from which boxes are kept, and below which they are dropped, (classes,) each."""
    keep = thresholds_of(run)
    drop = run.checkpoint['state_dict'].get('drop_thresholds')
    # Of a run with a filter they are the filter's scores, which say nothing about the detector's.
    if not run.is_pair or run.has_filtered_scores or drop is None or drop.numel() != len(keep):
        return keep, keep
    return keep, torch.where(drop.isfinite(), drop, keep).minimum(keep)


def _doubts(
    look: Look, keep: Tensor, drop: Tensor, opinion: SecondOpinion | None, path: Path
) -> dict[str, Doubt]:
    doubts = {NEAR_THRESHOLD: closeness(look.teacher, keep, drop)}
    if look.student is not None:
        doubts[TEACHER_STUDENT] = disagreement(look.teacher, look.student)
    if opinion is not None:
        doubts[DETECTOR_CLIP] = opinion.doubt(path, look.teacher)
    return doubts


def _mean(doubts: dict[str, Doubt]) -> float:
    return sum(doubt.value for doubt in doubts.values()) / len(doubts)


def _suggestion(
    rank: int,
    choice: Choice,
    images: list[ListedImage],
    looks: list[Look],
    doubts: list[dict[str, Doubt]],
    usual: dict[str, float],
    threshold: Tensor,
    classes: tuple[str, ...],
) -> Suggestion:
    look, parts = looks[choice.index], doubts[choice.index]
    found = look.teacher
    boxes = found[found.scores >= threshold[found.labels]]
    return Suggestion(
        rank=rank,
        image=images[choice.index],
        size=look.size,
        score=choice.score,
        novelty=choice.novelty,
        doubts={name: doubt.value for name, doubt in parts.items()},
        reason=explain(parts, usual, choice.novelty, classes, len(boxes) > 0),
        boxes=boxes[boxes.scores.argsort(descending=True)],
    )
