"""Builds a pseudo-label filter from settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from mmdsym.errors import UserError
from mmdsym.evaluation.held_out_quality import is_better_than_chance
from mmdsym.registry import MODELS

from .box_embedder import BoxEmbedder
from .box_opinion import BoxOpinion
from .class_evidence import ClassEvidence
from .cluster_evidence import ClusterEvidence
from .context_evidence import BoxShapes, ContextEvidence
from .crop_opinion import CropOpinion, crop_kinds
from .embedding_reuse import EmbeddingMemory
from .evidence import Evidence, JoinedEvidence, TeacherEvidence
from .extent_evidence import ExtentEvidence
from .foreign_veto import ForeignVeto
from .fusion import Fusion
from .image_gate import ImageGate
from .labelled_crops import read_labelled_crops
from .pseudo_label_filter import PseudoLabelFilter
from .scored_once import ScoredOnce
from .stability_evidence import StabilityEvidence

BOX_KINDS = ('teacher', 'context', 'cluster', 'stability')
CROP_KINDS = ('class', 'extent')
"""Kinds that look at crops, and so need a CLIP scorer."""
_COSTLY = 'stability'
DEFAULT_VETO_COST = 0.02


def build_filter(
    classes: Sequence[str],
    scorer: Mapping | nn.Module,
    labelled: Mapping,
    evidence: Sequence[str] | None = None,
    gate: Mapping | None = None,
    reuse: Mapping | None = None,
    fusion: Mapping | None = None,
    crops: Mapping | None = None,
    device: torch.device | str = 'cpu',
    **settings,
) -> PseudoLabelFilter:
    """Builds the filter, and of the scorer what labelled crops teach it.

    A scorer that is no better than chance is never asked: neither evidence nor veto nor gate
    come from it.

    Args:
        classes: Class names.
        scorer: A scorer, or its config; ``classes`` are filled in where it names none.
        labelled: ``ann_file`` (COCO json) and ``images_dir`` of labelled images.
        evidence: Kinds to fuse: ``'teacher'`` (always first), ``'context'`` (the other boxes of
            the image, and the usual shapes of the class), ``'cluster'`` (the teacher's boxes before
            suppression), ``'stability'`` (the teacher's boxes on the turned image, at the price of
            a forward pass), ``'class'`` (CLIP on the crop) and ``'extent'`` (an adapted CLIP on
            how well the box fits). By default all that the scorer can judge but ``'stability'``;
            the fusion drops what adds nothing.
        gate: Arguments of :class:`mmdsym.clip.image_gate.ImageGate`; ``None`` for no gate.
        reuse: Arguments of :class:`mmdsym.clip.embedding_reuse.EmbeddingMemory`.
        fusion: Further arguments of :class:`mmdsym.clip.Fusion`.
        crops: Further arguments of :class:`mmdsym.clip.CropOpinion`; ``veto_cost`` is that of its
            :class:`mmdsym.clip.foreign_veto.ForeignVeto`, 0 for no veto.
        device: Where the scorer computes.
        **settings: Further arguments of :class:`mmdsym.clip.PseudoLabelFilter`.

    Raises:
        UserError: An unknown kind of evidence, or whatever is wrong with the scorer.
    """
    for kind in evidence or ():
        if kind not in BOX_KINDS + CROP_KINDS:
            raise UserError(
                f"the CLIP filter knows no evidence '{kind}': use some of "
                f'{", ".join(BOX_KINDS + CROP_KINDS)}.'
            )
    built = build_scorer(scorer, classes, device)
    if hasattr(built, 'judge_by'):
        built.judge_by(labelled['ann_file'], labelled['images_dir'])
    if not is_better_than_chance(built):
        gate = None
    kinds = _choose_kinds(evidence, built)
    fusion, crops = dict(fusion or {}), dict(crops or {})
    of_boxes = JoinedEvidence(
        {kind: _build_box_kind(kind, classes, labelled) for kind in kinds if kind in BOX_KINDS}
    )
    return PseudoLabelFilter(
        built,
        BoxEmbedder(built, EmbeddingMemory(**(reuse or {}))),
        BoxOpinion(of_boxes, Fusion(of_boxes.columns, len(classes), **fusion)),
        _build_crop_opinion(kinds, built, len(classes), fusion, crops),
        len(classes),
        gate=None if gate is None else ImageGate(**gate),
        **settings,
    )


def _build_crop_opinion(
    kinds: Sequence[str], scorer: nn.Module, num_classes: int, fusion: dict, crops: dict
) -> CropOpinion:
    wanted = [kind for kind in kinds if kind in CROP_KINDS]
    cost = crops.pop('veto_cost', DEFAULT_VETO_COST)
    if not wanted or not is_better_than_chance(scorer):
        return CropOpinion(None, None, **crops)
    classes = ScoredOnce(scorer)
    judges = {'class': ClassEvidence(classes), 'extent': ExtentEvidence(scorer)}
    evidence = JoinedEvidence({kind: judges[kind] for kind in wanted})
    settings = {'prior': 'the boxes', **fusion}
    fused = Fusion(crop_kinds(evidence), num_classes, **settings)
    measures = (scorer.likeness, classes.agreement)
    return CropOpinion(evidence, fused, veto=ForeignVeto(measures, cost), **crops)


def build_scorer(
    scorer: Mapping | nn.Module, classes: Sequence[str], device: torch.device | str = 'cpu'
) -> nn.Module:
    """Builds a scorer, unless it is one, and lets it learn from labelled crops on a device."""
    if isinstance(scorer, Mapping):
        settings = dict(scorer)
        if settings.get('classes') is None and settings.get('weights') is None:
            settings['classes'] = list(classes)
        scorer = MODELS.build(settings)
        if tuple(scorer.classes) != tuple(classes):
            raise UserError(
                f'the CLIP scorer knows the classes {list(scorer.classes)}, the detector '
                f'{list(classes)}: adapt one to this data, or correct its classes.'
            )
    # Before it learns: what it keeps of labelled crops stays where it was computed, and each look
    # would bring it to a GPU anew.
    scorer = scorer.to(device)
    if hasattr(scorer, 'prepare'):
        scorer.prepare()
    return scorer


def _choose_kinds(evidence: Sequence[str] | None, scorer: nn.Module) -> list[str]:
    """Puts the teacher first; without a choice, takes all that the scorer can judge."""
    judges_extent = getattr(scorer, 'extent_head', None) is not None
    if evidence is None:
        cheap = [kind for kind in BOX_KINDS if kind != _COSTLY]
        return [*cheap, 'class', *(['extent'] if judges_extent else [])]
    if 'extent' in evidence and not judges_extent:
        raise UserError(
            "the evidence 'extent' needs a CLIP model that was adapted with an extent head: run "
            'tools/train.py configs/clip/adapt_clip_neu_40pct.py and give its weights.'
        )
    return ['teacher', *(kind for kind in evidence if kind != 'teacher')]


def _build_box_kind(kind: str, classes: Sequence[str], labelled: Mapping) -> Evidence:
    if kind == 'teacher':
        return TeacherEvidence()
    if kind == 'cluster':
        return ClusterEvidence()
    if kind == 'stability':
        return StabilityEvidence()
    return ContextEvidence(_measure_shapes(labelled, len(classes)))


def _measure_shapes(labelled: Mapping, num_classes: int) -> BoxShapes:
    crops = read_labelled_crops(labelled['ann_file'], labelled['images_dir'], clean_per_image=0)
    boxes = np.concatenate([image.boxes for image in crops.images])
    return BoxShapes.measure(
        torch.from_numpy(boxes).float(), torch.from_numpy(crops.labels()).long(), num_classes
    )
