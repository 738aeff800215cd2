"""Which parts of a CLIP model learn."""

from __future__ import annotations

from torch import nn

from mmdsym.clip.model_building import has_trunk
from mmdsym.errors import UserError


def freeze(network: nn.Module, trained_groups: int | None, train_text: bool) -> None:
    """Takes the gradient from what is not to learn.

    Args:
        network: An open_clip model.
        trained_groups: See :class:`mmdsym.clip.CLIPAdaptation`.
        train_text: Likewise.

    Raises:
        UserError: The image tower cannot be frozen in part.
    """
    text = getattr(network, 'text', network)
    if not train_text:
        visual = {id(parameter) for parameter in network.visual.parameters()}
        for parameter in network.parameters():
            if id(parameter) not in visual and parameter is not network.logit_scale:
                parameter.requires_grad_(False)
    if hasattr(text, 'token_embedding'):
        text.token_embedding.requires_grad_(False)
    if trained_groups is None:
        return
    if has_trunk(network):
        _freeze_trunk(network.visual.trunk, trained_groups)
        return
    try:
        network.lock_image_tower(unlocked_groups=trained_groups)
    except (AssertionError, NotImplementedError, AttributeError) as error:
        raise UserError(
            f'this image tower cannot be frozen up to its last {trained_groups} groups '
            f'({error}): set trained_groups=None.'
        ) from None


def _freeze_trunk(trunk: nn.Module, trained_groups: int) -> None:
    from timm.models import group_parameters

    groups = group_parameters(trunk, trunk.group_matcher())
    last = max(groups)
    if not 0 <= trained_groups <= last + 1:
        raise UserError(
            f'trained_groups={trained_groups} is not possible: this image tower has {last + 1} '
            'groups.'
        )
    for group, names in groups.items():
        for name in names:
            trunk.get_parameter(name).requires_grad_(group > last - trained_groups)
