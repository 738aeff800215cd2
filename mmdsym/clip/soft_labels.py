"""Weights of pseudo-boxes for detectors whose losses know none."""

from __future__ import annotations

import numpy as np
import torch

from mmdsym.models import PseudoLabels, silences


def draw_by_weight(labels: PseudoLabels, generator: np.random.Generator) -> PseudoLabels:
    """Lets each kept box take part with the probability that its score is.

    A box that sits out is uncertain for this iteration: neither ground truth nor background. Over
    many iterations a box so counts in proportion to its score, whatever the detector's loss looks
    like, and no loss has to know of weights. (Losses that divide by the number of positive samples
    do so with those of the iteration.) A box that would silence another kept one when ignored is
    dropped for the iteration instead, as any uncertain box is.

    Args:
        labels: Of one image; ``kept.scores`` in [0, 1] are the weights.
        generator: Draws one number for each kept box, in their order.
    """
    kept = labels.kept
    draws = torch.from_numpy(generator.random(len(kept))).to(kept.scores)
    stays = draws < kept.scores
    if bool(stays.all()):
        return labels
    out, remaining = kept[~stays], kept[stays]
    hides = silences(out.bboxes, remaining.bboxes)
    return PseudoLabels(
        remaining,
        type(kept).cat([labels.uncertain, out[~hides]]),
        type(kept).cat([labels.dropped, out[hides]]),
    )
