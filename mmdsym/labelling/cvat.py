"""Pre-labels as a COCO json that CVAT imports."""

from __future__ import annotations

from mmdsym.datasets.preparation.boxes import edges_to_coco
from mmdsym.datasets.preparation.merging.coco_export import UNCHECKED

from .suggesting import Suggestions


def as_coco(suggestions: Suggestions) -> dict:
    """Returns a COCO document whose ids count from 1, as CVAT wants them.

    Its ``info`` says that nobody has checked the labels, so that they are not merged as they are.
    """
    annotations = []
    for entry in suggestions.images:
        boxes = entry.boxes
        rows = zip(boxes.bboxes.tolist(), boxes.labels.tolist(), boxes.scores.tolist(), strict=True)
        for corners, label, score in rows:
            bbox = [round(value, 2) for value in edges_to_coco(tuple(corners))]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=entry.rank,
                    category_id=label + 1,
                    bbox=bbox,
                    area=round(bbox[2] * bbox[3], 2),
                    iscrowd=0,
                    segmentation=[],
                    score=round(score, 4),
                )
            )
    return dict(
        info={UNCHECKED: suggestions.model},
        licenses=[],
        categories=[
            dict(id=number, name=name, supercategory='')
            for number, name in enumerate(suggestions.classes, start=1)
        ],
        images=[
            dict(
                id=entry.rank,
                file_name=entry.image.name,
                width=entry.size[0],
                height=entry.size[1],
            )
            for entry in suggestions.images
        ],
        annotations=annotations,
    )
