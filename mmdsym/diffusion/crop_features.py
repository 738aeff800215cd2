"""Features of crops around boxes, from a network trained on ImageNet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
import timm
import torch
from torch import Tensor

from mmdsym.crops import crop_windows, square_windows
from mmdsym.models.pretrained import (
    PYPI_EFFICIENTNET,
    PYPI_TIMM_MODEL,
    check_model_name,
    load_pretrained,
)

_MIN_SIDE = 16.0
_TURNS = 4


class CropFeatures:
    """Computes the pooled features of crops.

    The network always sees batches of one shape, so that a crop's features do not depend on what
    stands beside it.

    Args:
        contexts: Sides of the crops in units of the box's longer side; their features are
            concatenated.
        turned: Whether to average over the four quarter turns of a crop.
        size: Side of the crops in pixels as the network sees them.
        batch_size: Crops that the network computes together, turns counted; a multiple of 4.
        model_name: timm's name of the network.
        pretrained: Its weights, see :func:`mmdsym.models.pretrained.load_pretrained`.
        device: ``'cuda'``, ``'cpu'``, or by default what there is.

    Raises:
        UserError: The network is unknown, or its weights are missing.
    """

    def __init__(
        self,
        contexts: Sequence[float] = (1.3,),
        turned: bool = False,
        size: int = 112,
        batch_size: int = 16,
        model_name: str = PYPI_TIMM_MODEL,
        pretrained: str = PYPI_EFFICIENTNET,
        device: str | None = None,
    ) -> None:
        check_model_name(model_name)
        self.contexts = tuple(contexts)
        self.turned = turned
        self.size = size
        self.batch_size = batch_size
        self.model_name = model_name
        self.device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
        self.net = timm.create_model(model_name, num_classes=0)
        load_pretrained(self.net, model_name, pretrained)
        self.net.eval().requires_grad_(False).to(self.device)

    @property
    def length(self) -> int:
        """Number of features of a crop."""
        return self.net.num_features * len(self.contexts)

    @property
    def fingerprint(self) -> str:
        """Of the weights and of every setting that changes features."""
        digest = hashlib.sha256()
        for name, tensor in self.net.state_dict().items():
            digest.update(name.encode() + tensor.cpu().numpy().tobytes())
        settings = ['crop features 1', self.contexts, self.turned, self.size, self.batch_size]
        return json.dumps([*settings, self.model_name, digest.hexdigest()])

    def extract(self, images: Iterable[np.ndarray], boxes: np.ndarray) -> Tensor:
        """Computes the features of one crop of each image.

        Args:
            images: N images of shape (H, W, 3), uint8, RGB, taken one after the other; the same
                array may come several times.
            boxes: (N, 4), x1 y1 x2 y2 in pixels.

        Returns:
            (N, ``length``), float32, on the CPU.
        """
        boxes = torch.as_tensor(np.asarray(boxes), dtype=torch.float32).reshape(-1, 4)
        stacks = (self._views(image, box) for image, box in zip(images, boxes, strict=True))
        per_box = len(self.contexts) * (_TURNS if self.turned else 1)
        at_once = max(1, self.batch_size // per_box)
        results = [torch.zeros(0, self.length)]
        while chunk := list(islice(stacks, at_once)):
            results.append(self._features(chunk, at_once))
        return torch.cat(results)

    def _views(self, image: np.ndarray, box: Tensor) -> Tensor:
        """Returns a box's crops (contexts x turns, 3, size, size), as the network wants them."""
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float()
        windows = torch.cat([square_windows(box[None], c, _MIN_SIDE) for c in self.contexts])
        crops = crop_windows(pixels, windows, self.size) / 127.5 - 1
        turns = range(_TURNS if self.turned else 1)
        return torch.stack([torch.rot90(crops, turn, (2, 3)) for turn in turns], 1).flatten(0, 1)

    @torch.no_grad()
    def _features(self, chunk: list[Tensor], at_once: int) -> Tensor:
        filled = chunk + chunk[:1] * (at_once - len(chunk))
        pooled = self.net(torch.cat(filled).to(self.device)).float().cpu()
        return (
            pooled.unflatten(0, (at_once, len(self.contexts), -1)).mean(2).flatten(1)[: len(chunk)]
        )
