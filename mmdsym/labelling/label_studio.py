"""Pre-labels as predictions for Label Studio."""

from __future__ import annotations

from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from mmdsym.datasets.preparation.merging.label_studio_export import FILE_KEY

from .suggesting import Suggestion, Suggestions

LINK = '/data/local-files/?d='
"""How Label Studio names files that its server reads from a folder."""


def as_tasks(suggestions: Suggestions, link: str = LINK) -> list[dict]:
    """Returns tasks with predictions, to be imported as JSON.

    Args:
        suggestions: The images with their pre-labels.
        link: What stands before the images' names in the links to them.
    """
    return [_task(entry, suggestions, link) for entry in suggestions.images]


def as_labelling_config(classes: tuple[str, ...]) -> str:
    """Returns the labelling interface that the tasks need, as Label Studio's XML."""
    labels = '\n'.join(f'    <Label value={quoteattr(name)}/>' for name in classes)
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <RectangleLabels name="label" toName="image">\n{labels}\n  </RectangleLabels>\n'
        '</View>\n'
    )


def _task(entry: Suggestion, suggestions: Suggestions, link: str) -> dict:
    boxes = entry.boxes
    rows = zip(boxes.bboxes.tolist(), boxes.labels.tolist(), boxes.scores.tolist(), strict=True)
    result = [
        _region(f'{entry.rank}-{number}', corners, suggestions.classes[label], score, entry.size)
        for number, (corners, label, score) in enumerate(rows, start=1)
    ]
    score = float(boxes.scores.mean()) if len(boxes) else 0.0
    prediction = dict(model_version=suggestions.model, score=round(score, 4), result=result)
    data = {'image': f'{link}{quote(entry.image.name)}', FILE_KEY: entry.image.name}
    return dict(data=data | dict(rank=entry.rank, reason=entry.reason), predictions=[prediction])


def _region(
    identity: str, corners: list[float], label: str, score: float, size: tuple[int, int]
) -> dict:
    """A rectangle in per cent of the image's sides."""
    width, height = size
    x1, y1, x2, y2 = corners
    return dict(
        id=identity,
        type='rectanglelabels',
        from_name='label',
        to_name='image',
        original_width=width,
        original_height=height,
        image_rotation=0,
        score=round(score, 4),
        value=dict(
            x=100 * x1 / width,
            y=100 * y1 / height,
            width=100 * (x2 - x1) / width,
            height=100 * (y2 - y1) / height,
            rotation=0,
            rectanglelabels=[label],
        ),
    )
