"""COCO documents of a prepared data set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from mmdsym.datasets.preparation.boxes import DIGITS, at_least_a_pixel, edges_to_coco
from mmdsym.datasets.preparation.records import Box, SourceImage
from mmdsym.tiling import Tiling


class CocoDocuments:
    """Writes subsets of one data set so that ids mean the same in all of them.

    Args:
        classes: Class names; the first gets category id 1.
        images: All images that any document may list.
        tiling: How they were cut, where they are tiles.
    """

    def __init__(
        self,
        classes: Sequence[str],
        images: Sequence[SourceImage],
        tiling: Tiling | None = None,
    ) -> None:
        self._tiling = tiling
        self._category_ids = {label: index for index, label in enumerate(classes, start=1)}
        ordered = sorted(images, key=lambda image: image.name)
        self._image_ids = {image.name: index for index, image in enumerate(ordered, start=1)}
        self._first_annotation_ids: dict[str, int] = {}
        next_id = 1
        for image in ordered:
            self._first_annotation_ids[image.name] = next_id
            next_id += len(image.boxes)

    def document(self, images: Sequence[SourceImage], with_boxes: bool = True) -> bytes:
        """One COCO document.

        Args:
            images: The images it lists.
            with_boxes: False lists images alone, so that no label can leak.
        """
        ordered = sorted(images, key=lambda image: image.name)
        annotations = [row for image in ordered for row in self._rows(image)] if with_boxes else []
        content = {
            **({'info': {'tiling': asdict(self._tiling)}} if self._tiling else {}),
            'categories': [
                {'id': number, 'name': label} for label, number in self._category_ids.items()
            ],
            'images': [
                {
                    'id': self._image_ids[image.name],
                    'file_name': image.name,
                    'width': image.width,
                    'height': image.height,
                    **({'tile': asdict(image.tile)} if image.tile else {}),
                    **(_origin(image) if with_boxes else {}),
                }
                for image in ordered
            ],
            'annotations': annotations,
        }
        return json.dumps(content, indent=1, ensure_ascii=False).encode()

    def _rows(self, image: SourceImage) -> list[dict]:
        first = self._first_annotation_ids[image.name]
        return [
            {
                'id': first + offset,
                'image_id': self._image_ids[image.name],
                'category_id': self._category_ids[box.label],
                **_place(box, image),
                'iscrowd': int(box.ignore),
            }
            for offset, box in enumerate(image.boxes)
        ]


def _place(box: Box, image: SourceImage) -> dict:
    # The border of a tile can leave less than a pixel of a box that had more.
    edges = at_least_a_pixel((box.x1, box.y1, box.x2, box.y2), image.width, image.height)
    x, y, width, height = edges_to_coco(edges)
    return {'bbox': [_tidy(v) for v in (x, y, width, height)], 'area': _tidy(width * height)}


def _origin(image: SourceImage) -> dict:
    """What is known of an image's labels besides the boxes; nothing for most."""
    origin = {'known_good': image.known_good, 'label_source': image.label_source}
    return {key: value for key, value in origin.items() if value}


def _tidy(value: float) -> float:
    """Whole numbers as such, others to a ten-thousandth of a pixel."""
    rounded = round(value, DIGITS)
    return int(rounded) if rounded == int(rounded) else rounded
