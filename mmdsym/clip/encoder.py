"""From images and boxes to features, all crops of a batch in one go."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor, nn

from mmdsym.clip.folded import Folded
from mmdsym.clip.model_building import ClipModel, has_trunk
from mmdsym.clip.views import CropView, visible_boxes
from mmdsym.crops import crop_windows
from mmdsym.errors import UserError
from mmdsym.half_precision import bfloat16_is_faster
from mmdsym.models.same_padding import pad_kernels

PARTS = ('embedding', 'trunk')


class CropEncoder(nn.Module):
    """Cuts boxes out of images and encodes them with a CLIP model's image tower.

    The feature of a box is the concatenation, over views and parts, of unit vectors, scaled to unit
    length as a whole: the product of two features is the mean of their parts' cosines.

    Args:
        model: The model; its network becomes part of this module.
        views: How each box is looked at.
        parts: ``'embedding'``, CLIP's own space, which sentences are compared with; ``'trunk'``,
            what a timm image tower sees before its projection. The first is always among them.
        max_crops: Most crops in one forward pass. Memory grows by about 2 MB a crop for
            EfficientNet-Lite0 at 112 pixels, 40 MB for ViT-B-32 at 224.

    Raises:
        UserError: No view, an unknown part, or one that the image tower does not have.
    """

    def __init__(
        self,
        model: ClipModel,
        views: Sequence[CropView] = (CropView(),),
        parts: Sequence[str] = ('embedding',),
        max_crops: int = 256,
    ) -> None:
        super().__init__()
        _check_parts(parts, model.network)
        if not views:
            raise UserError('the CLIP scorer has no view of its boxes: name at least one in views.')
        if max_crops < 1:
            raise UserError(f'max_crops is {max_crops}: set it to 1 or more.')
        self.network = model.network
        self.views = tuple(views)
        self.parts = tuple(parts)
        self.max_crops = max_crops
        self.image_size = model.image_size
        self._folded: Folded | None = None
        self._embedding_width = int(model.config['embed_dim'])
        self.register_buffer('mean', 255 * torch.tensor(model.mean).view(3, 1, 1), persistent=False)
        self.register_buffer('std', 255 * torch.tensor(model.std).view(3, 1, 1), persistent=False)

    def fold(self) -> None:
        """Makes a timm image tower faster, once its weights stay as they are."""
        if has_trunk(self.network):
            pad_kernels(self.network.visual.trunk)
            self._folded = Folded(self.network.visual.trunk)

    @property
    def precision(self) -> str:
        """What its image tower multiplies, as far as the processor decides it."""
        shortens = self._folded is not None and self.mean.device.type == 'cpu'
        return 'bfloat16' if shortens and bfloat16_is_faster() else 'float32'

    def forward(self, images: Sequence[Tensor], boxes: Sequence[Tensor]) -> list[Tensor]:
        """Computes the features of boxes.

        Args:
            images: (C, H, W) each, of one (grey) or three (RGB) channels, in 0..255.
            boxes: (N, 4) each, x1 y1 x2 y2 in pixels of that image.

        Returns:
            (N, D) each, of unit length; zeros for a box that shows no pixel of its image (one
            outside of it, of no area, or with coordinates that are not finite).
        """
        crops, visible = self.cut(images, boxes)
        features = self.encode(crops)
        counts = [int(mine.sum()) for mine in visible]
        results = []
        for mine, found in zip(visible, features.split(counts), strict=True):
            result = features.new_zeros(len(mine), features.shape[1])
            result[mine] = found
            results.append(result)
        return results

    def cut(self, images: Sequence[Tensor], boxes: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Cuts the visible boxes out of images at their own resolution.

        Returns:
            Crops, (M, views, 3, size, size) in 0..255; and, for each image, which of its boxes are
            among them, (N,), bool.
        """
        if len(images) != len(boxes):
            raise ValueError(f'{len(images)} images do not go with {len(boxes)} sets of boxes.')
        crops, visible = [], []
        for image, of_image in zip(images, boxes, strict=True):
            pixels = one_if_alike(as_rgb(image)).to(self.mean)
            height, width = pixels.shape[-2:]
            of_image = of_image.detach().to(self.mean).reshape(-1, 4)
            clipped, mine = visible_boxes(of_image, (width, height))
            found = view_crops(pixels, clipped[mine], self.views, self.image_size)
            crops.append(found.expand(-1, -1, 3, -1, -1))
            visible.append(mine)
        if not crops:
            size = self.image_size
            return self.mean.new_zeros(0, len(self.views), 3, size, size), []
        return torch.cat(crops), visible

    def encode(self, crops: Tensor) -> Tensor:
        """Encodes crops, :attr:`max_crops` at a time.

        Args:
            crops: (M, views, 3, size, size), in 0..255.

        Returns:
            (M, D), of unit length.
        """
        flat = crops.flatten(0, 1)
        chunks = flat.split(self.max_crops) if len(flat) else [flat]
        parts = [self.encode_parts(chunk) for chunk in chunks]
        joined = [torch.cat([part[name] for part in parts]) for name in self.parts]
        vectors = [part.unflatten(0, (len(crops), len(self.views))) for part in joined]
        unit = torch.cat([part.flatten(1) for part in vectors], dim=1)
        return unit / (len(self.views) * len(self.parts)) ** 0.5

    def encode_parts(self, crops: Tensor) -> dict[str, Tensor]:
        """Computes the unit vectors of crops, (M, 3, size, size) in 0..255, by part."""
        if not len(crops):
            return {name: crops.new_zeros(0, width) for name, width in self.part_widths().items()}
        inputs = (crops - self.mean) / self.std
        if inputs.device.type == 'cpu':
            # GPUs have no fast depthwise convolution for this layout in single precision.
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        if 'trunk' not in self.parts:
            return {'embedding': _unit(self.network.encode_image(inputs))}
        trunk = self._trunk(inputs)
        embedding = self.network.visual.head(trunk)
        return {'embedding': _unit(embedding), 'trunk': _unit(trunk)}

    def _trunk(self, inputs: Tensor) -> Tensor:
        if self._folded is None or inputs.device.type != 'cpu':
            return self.network.visual.trunk(inputs)
        return self._folded(inputs)

    def embedding_of(self, features: Tensor) -> Tensor:
        """Returns CLIP's own part of features, (N, views, width), unit vectors again."""
        width = self.part_widths()['embedding']
        block = features[:, : width * len(self.views)]
        return F.normalize(block.unflatten(1, (len(self.views), width)), dim=-1)

    def trunk_of(self, features: Tensor) -> Tensor:
        """Returns the image tower's own part of features, (N, views * width), unit vectors again.

        Raises:
            UserError: It is not among the parts.
        """
        if 'trunk' not in self.parts:
            raise UserError("the features hold no 'trunk': add it to features of the CLIP scorer.")
        start = self.part_widths()['embedding'] * len(self.views)
        return F.normalize(features[:, start:], dim=-1)

    def part_widths(self) -> dict[str, int]:
        """Returns the length of each part's vector."""
        widths = {'embedding': self._embedding_width}
        if 'trunk' in self.parts:
            widths['trunk'] = self.network.visual.trunk.num_features
        return widths

    @property
    def feature_width(self) -> int:
        """Length of a box's feature."""
        return len(self.views) * sum(self.part_widths().values())


def view_crops(pixels: Tensor, boxes: Tensor, views: Sequence[CropView], size: int) -> Tensor:
    """Cuts boxes out of one image in every view.

    Args:
        pixels: (C, H, W), floating point.
        boxes: (N, 4), inside the image and of positive area.
        views: How to look at them.
        size: Side of the crops in pixels.

    Returns:
        (N, views, C, size, size).
    """
    crops = [crop_windows(pixels, view.windows(boxes), size) for view in views]
    return torch.stack(crops, dim=1)


def as_rgb(image: Tensor) -> Tensor:
    """Returns an image with three channels.

    Raises:
        UserError: It has neither one nor three.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise UserError(
            f'the CLIP scorer got an image of shape {tuple(image.shape)}: give it (1, H, W) or '
            '(3, H, W).'
        )
    return image.expand(3, -1, -1)


def one_if_alike(image: Tensor) -> Tensor:
    """Returns the first channel of a grey image, (1, H, W), and a coloured one as it is.

    Cutting one channel takes a third of the time, and gives what cutting three alike would.
    """
    is_grey = all(torch.equal(image[0], channel) for channel in image[1:])
    return image[:1] if is_grey else image


def _unit(vectors: Tensor) -> Tensor:
    """Unit vectors in float32: in half precision the floor under a length would round to 0."""
    return F.normalize(vectors.float(), dim=-1)


def _check_parts(parts: Sequence[str], network: nn.Module) -> None:
    unknown = [name for name in parts if name not in PARTS]
    if unknown or 'embedding' not in parts or parts[0] != 'embedding':
        raise UserError(
            f"the features {list(parts)} do not exist: use ['embedding'] or ['embedding', 'trunk']."
        )
    if 'trunk' in parts and not has_trunk(network):
        raise UserError(
            "the feature 'trunk' needs an image tower of timm's: leave it out of features."
        )
