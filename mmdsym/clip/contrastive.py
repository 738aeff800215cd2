"""The contrastive loss of CLIP where many images share one class."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor


def class_contrastive_losses(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Compares crops with the sentences of classes, in both directions.

    In a batch of six classes most other images of CLIP's loss would be false negatives: here every
    crop of a class is a positive of its sentences ("Supervised Contrastive Learning", arXiv
    2004.11362; "Unified Contrastive Learning", arXiv 2204.03610).

    Args:
        logits: (N, classes), scaled cosines of crops and sentences.
        labels: (N,), class indices.
        label_smoothing: Share of the target that goes to the other classes, in [0, 1).

    Returns:
        The loss of crops that look for their sentences, and of sentences that look for their
        crops (the mean over classes in the batch); zero without crops.
    """
    if not len(logits):
        nothing = logits.sum() * 0
        return nothing, nothing
    to_text = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    member = F.one_hot(labels, logits.shape[1]).to(logits)
    counts = member.sum(dim=0)
    found = (logits.log_softmax(dim=0) * member).sum(dim=0)
    present = counts > 0
    # Its least value is the logarithm of the number of positives, taken off to make it zero.
    to_image = -(found[present] / counts[present] + counts[present].log()).mean()
    return to_text, to_image
