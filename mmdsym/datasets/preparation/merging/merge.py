"""Joining labels into a data set without losing any that a person made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mmdsym.datasets.preparation.mending import MAX_LINES
from mmdsym.datasets.preparation.merging.comparing import describe_change, same_boxes
from mmdsym.datasets.preparation.records import Box, Source, SourceImage
from mmdsym.errors import UserError

PREFERENCES = ('new', 'old')


@dataclass
class MergeReport:
    """What became of each image of an export, by name.

    Args:
        labelled: Images that had no label before.
        unchanged: Images whose boxes stay what they were.
        replaced: Images whose boxes were replaced, with the difference in words.
        kept: Images whose old boxes were kept against other new ones, likewise.
        without_defect: Images that came back without any box and had no label before.
    """

    labelled: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    replaced: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    without_defect: list[str] = field(default_factory=list)

    @property
    def confirmed(self) -> set[str]:
        """All images that have labels now because of, or as well as, the export."""
        return {*self.labelled, *self.unchanged, *self.replaced, *self.kept}

    def sentences(self) -> list[str]:
        """Returns the report for the data card, one sentence each."""
        told = [
            f'{len(self.labelled)} images were labelled anew, {len(self.unchanged)} came back '
            f'unchanged, {len(self.replaced)} were replaced, {len(self.kept)} kept as they were.'
        ]
        told += [f'Replaced labels of {name}: {change}.' for name, change in self.replaced.items()]
        told += [f'Kept old labels of {name}: {change}.' for name, change in self.kept.items()]
        if self.without_defect:
            told.append(
                f'{len(self.without_defect)} images came back without any box and count as free of '
                f'defects, such as {self.without_defect[0]}.'
            )
        return told


def merge_labels(
    source: Source,
    boxes: dict[str, list[Box]],
    label_source: str,
    prefer: str | None = None,
    origins: Mapping[str, str] | None = None,
) -> MergeReport:
    """Gives the images of a data set the labels of an export.

    Args:
        source: The data set; it is changed.
        boxes: Name of an image to its new boxes.
        label_source: What to note as origin of new labels.
        prefer: What wins where an image has other labels already: `'new'` or `'old'`.
        origins: Name of an image to the origin of its new labels, where it is another one.

    Raises:
        UserError: When labels that people made differ and nothing is preferred; the source is then
            as it was.
    """
    known = {image.name: image for image in source.images}
    conflicts = {
        name: describe_change(known[name].boxes, new)
        for name, new in sorted(boxes.items())
        if name in known and not same_boxes(known[name].boxes, new)
    }
    if conflicts and prefer is None:
        _refuse(conflicts)
    report = MergeReport()
    origins = origins or {}
    waiting = {image.name: image for image in source.unlabelled}
    for name, new in sorted(boxes.items()):
        if name in conflicts and prefer == 'old':
            report.kept[name] = conflicts[name]
        elif name in conflicts:
            _label(known[name], new, origins.get(name, label_source))
            report.replaced[name] = conflicts[name]
        elif name in known:
            report.unchanged.append(name)
        else:
            _label(waiting[name], new, origins.get(name, label_source))
            waiting[name].split = 'train'
            source.images.append(waiting[name])
            report.labelled.append(name)
            report.without_defect += [] if new else [name]
    labelled = set(report.labelled)
    source.unlabelled = [image for image in source.unlabelled if image.name not in labelled]
    return report


def _label(image: SourceImage, boxes: Sequence[Box], label_source: str) -> None:
    image.boxes, image.label_source, image.known_good = list(boxes), label_source, False


def _refuse(conflicts: dict[str, str]) -> None:
    lines = [f'  {name}: {change}' for name, change in conflicts.items()]
    if len(lines) > MAX_LINES:
        lines[MAX_LINES:] = [f'  and {len(lines) - MAX_LINES} more images']
    raise UserError(
        f'{len(conflicts)} images have other labels already; say with --prefer new or --prefer old '
        'which ones are right:\n' + '\n'.join(lines)
    )
