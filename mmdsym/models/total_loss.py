"""The sum that the optimiser will see."""

from __future__ import annotations

from torch import Tensor


def total_loss(losses: dict[str, Tensor | list[Tensor]]) -> float:
    """Returns the sum of everything that counts as a loss, without its graph.

    Args:
        losses: As a detector returns them: what has ``loss`` in its name is summed.
    """
    total = 0.0
    for name, value in losses.items():
        if 'loss' in name:
            parts = value if isinstance(value, list) else [value]
            total += sum(float(part.detach().mean()) for part in parts)
    return total
