"""Embeddings of boxes that hardly moved since the image was last seen."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

from mmdsym.errors import UserError


@dataclass
class RememberedBox:
    """A box whose embedding is known, or is to be computed anew after a resume.

    Attributes:
        box: (4,), x1 y1 x2 y2 in the frame of the original image.
        feature: (D,), or ``None``.
    """

    box: Tensor
    feature: Tensor | None = None


class EmbeddingMemory:
    """Remembers embeddings by image and box, in bounded memory.

    A box that overlaps a remembered one of its image enough takes that one's embedding. What is
    remembered stays as it is, so that a box which creeps away is embedded anew in the end. Images
    seen longest ago are forgotten first.

    A checkpoint holds the boxes alone (16 bytes each): after a resume, a box that would have taken
    a remembered embedding gets it recomputed from the remembered box. So a resumed run sees what
    an uninterrupted one sees, and checkpoints stay small.

    Args:
        megabytes: Bound of the memory; 0 switches it off, and every box is embedded itself.
        min_overlap: IoU from which a box takes a remembered embedding, in (0, 1].
        boxes_per_image: Most boxes to remember of an image; those not used for longest go.

    Attributes:
        asked, reused: Boxes asked for, and those that took a remembered embedding.

    Raises:
        UserError: Impossible values.
    """

    def __init__(
        self, megabytes: float = 32.0, min_overlap: float = 0.9, boxes_per_image: int = 32
    ) -> None:
        if megabytes < 0 or boxes_per_image < 1 or not 0 < min_overlap <= 1:
            raise UserError(
                f'the embedding memory cannot have megabytes={megabytes}, '
                f'min_overlap={min_overlap} and boxes_per_image={boxes_per_image}: give 0 or more, '
                'a share above 0 up to 1, and 1 or more.'
            )
        self.capacity = int(megabytes * 2**20)
        self.min_overlap = min_overlap
        self.boxes_per_image = boxes_per_image
        self.asked = self.reused = 0
        self._images: OrderedDict[str, list[RememberedBox]] = OrderedDict()
        self._count = 0
        self._box_bytes = 0

    @property
    def used_bytes(self) -> int:
        """Memory in use, counting each box with its embedding."""
        return self._count * self._box_bytes

    def recall(self, image: str, boxes: Tensor) -> list[RememberedBox]:
        """Returns, for each box, the remembered box that stands for it, or itself.

        Whoever asks computes the ``feature`` of entries that have none, from the entry's ``box``,
        writes it there, and hands the list to :meth:`remember`.

        Args:
            image: Name of the image.
            boxes: (N, 4), of finite coordinates and positive area.
        """
        self.asked += len(boxes)
        known = self._images.get(image, [])
        # Detectors report one box under several classes: it is embedded once.
        rows = [(tuple(row.tolist()), row) for row in boxes.detach().cpu().float()]
        once = {key: RememberedBox(row) for key, row in rows}
        fresh = [once[key] for key, _ in rows]
        if not known or not fresh:
            return fresh
        overlaps = box_iou(boxes.detach().cpu().float(), torch.stack([e.box for e in known]))
        best, index = overlaps.max(dim=1)
        found = best >= self.min_overlap
        self.reused += int(found.sum())
        return [
            known[position] if hit else new
            for new, hit, position in zip(fresh, found.tolist(), index.tolist(), strict=True)
        ]

    def remember(self, image: str, entries: list[RememberedBox]) -> None:
        """Keeps what :meth:`recall` returned, now with features, for the next visit."""
        if not self.capacity or not entries:
            return
        before = self._images.pop(image, [])
        # Several boxes may have taken one remembered embedding.
        used = {id(entry): entry for entry in entries}
        unused = [entry for entry in before if id(entry) not in used]
        kept = [*unused, *used.values()][-self.boxes_per_image :]
        self._box_bytes = 16 + entries[0].feature.numel() * entries[0].feature.element_size()
        self._insert(image, kept, replaced=len(before))

    def forget(self) -> None:
        """Empties the memory: what was remembered is of another encoder."""
        self._images.clear()
        self._count = 0

    def take_counts(self) -> tuple[int, int]:
        """Returns :attr:`asked` and :attr:`reused` since the last call, and counts anew."""
        counts = self.asked, self.reused
        self.asked = self.reused = 0
        return counts

    def state_dict(self) -> dict:
        """Returns the remembered boxes, as tensors and plain values."""
        boxes = [entry.box for entries in self._images.values() for entry in entries]
        return {
            'images': list(self._images),
            'counts': [len(entries) for entries in self._images.values()],
            'boxes': torch.stack(boxes) if boxes else torch.zeros(0, 4),
            'box_bytes': self._box_bytes,
        }

    def load_state_dict(self, state: Mapping) -> None:
        """Takes over what :meth:`state_dict` returned; embeddings follow when they are needed."""
        self.forget()
        if not self.capacity:
            return
        self._box_bytes = int(state['box_bytes'])
        of_images = state['boxes'].cpu().float().split(list(state['counts']))
        for image, boxes in zip(state['images'], of_images, strict=True):
            self._insert(image, [RememberedBox(box) for box in boxes], replaced=0)

    def _insert(self, image: str, entries: list[RememberedBox], replaced: int) -> None:
        self._images[image] = entries
        self._count += len(entries) - replaced
        while self._images and self.used_bytes > self.capacity:
            _, oldest = self._images.popitem(last=False)
            self._count -= len(oldest)
