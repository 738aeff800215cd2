"""Embeddings of the boxes of a batch, from image files, in one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from mmdsym.datasets import LoadCachedImageFromFile

from .embedding_reuse import EmbeddingMemory


class Embedder(Protocol):
    """What turns boxes into features, such as :class:`mmdsym.clip.CLIPScorer`."""

    def embed(self, images: Sequence[Tensor], boxes: Sequence[Tensor]) -> list[Tensor]:
        """Returns (N, D) for each image; ``images`` (3, H, W), RGB, or (1, H, W), in 0..255."""


class BoxEmbedder:
    """Reads images at their original resolution and embeds boxes that are not remembered.

    Args:
        embedder: Computes the features.
        memory: Features of boxes that hardly moved.
        cache_megabytes: Memory for decoded images, see
            :class:`mmdsym.datasets.LoadCachedImageFromFile`.
    """

    def __init__(
        self, embedder: Embedder, memory: EmbeddingMemory, cache_megabytes: float = 256.0
    ) -> None:
        self.embedder = embedder
        self.memory = memory
        self._loader = LoadCachedImageFromFile(cache_megabytes=cache_megabytes)

    def read(self, path: str) -> Tensor:
        """Returns an image as (3, H, W), RGB, or (1, H, W) where it is grey; uint8.

        Raises:
            UserError: It is missing or cannot be decoded.
        """
        channels = self._loader.decoded(path)[..., ::-1].transpose(2, 0, 1)
        return torch.from_numpy(channels.copy(order='C'))

    def embed(self, paths: Sequence[str], boxes: Sequence[Tensor]) -> list[Tensor]:
        """Returns the features of boxes, (N, D) on the CPU for each image.

        Images without boxes are not even read.

        Args:
            paths: Of the images.
            boxes: (N, 4) each, x1 y1 x2 y2 in pixels, finite.
        """
        memory = self.memory
        recalled = [memory.recall(path, mine) for path, mine in zip(paths, boxes, strict=True)]
        # Several boxes may stand on one entry: each entry is embedded once.
        lacking = [
            list({id(entry): entry for entry in entries if entry.feature is None}.values())
            for entries in recalled
        ]
        needed = [index for index, entries in enumerate(lacking) if entries]
        if needed:
            features = self.embedder.embed(
                [self.read(paths[index]) for index in needed],
                [torch.stack([entry.box for entry in lacking[index]]) for index in needed],
            )
            for index, found in zip(needed, features, strict=True):
                for entry, feature in zip(lacking[index], found.cpu(), strict=True):
                    # A copy, so that no row keeps the whole batch alive.
                    entry.feature = feature.clone()
        for path, entries in zip(paths, recalled, strict=True):
            memory.remember(path, entries)
        width = next((len(entries[0].feature) for entries in recalled if entries), 0)
        return [
            torch.stack([entry.feature for entry in entries]) if entries else torch.zeros(0, width)
            for entries in recalled
        ]
