"""Refusing a source that would spoil a run, or mending it when the user asks for that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mmdsym.datasets.preparation.inspection import TOLERANCE, clip, overhang
from mmdsym.datasets.preparation.records import (
    DAMAGED,
    DUPLICATE,
    SECOND_ANNOTATION,
    UNREADABLE,
    WITHOUT_IMAGE,
    Box,
    Problem,
    Source,
    SourceImage,
)
from mmdsym.errors import UserError

MAX_LINES = 20


def refuse(problems: Sequence[Problem]) -> None:
    """Raises with one line per problem and at most `MAX_LINES` of them.

    Raises:
        UserError: When there is any problem.
    """
    if not problems:
        return
    counts = ', '.join(f'{n} x {kind}' for kind, n in Counter(p.kind for p in problems).items())
    lines = [f'  {problem}' for problem in problems[:MAX_LINES]]
    if len(problems) > MAX_LINES:
        lines.append(f'  and {len(problems) - MAX_LINES} more')
    raise UserError(
        f'the data would spoil a run ({counts}); mend them as told below, or run again with '
        '--fix:\n' + '\n'.join(lines)
    )


def mend(source: Source, problems: Sequence[Problem]) -> list[str]:
    """Clips and drops what can be mended, in the source's records alone; no file is touched.

    An image that loses all its boxes is left out: it does show defects, and would otherwise teach
    that they are background.

    Returns:
        What was done, one sentence each.
    """
    done: list[str] = []
    spoilt = {p.file: p for p in problems if p.kind in (DAMAGED, DUPLICATE, UNREADABLE)}
    for images in (source.images, source.unlabelled):
        kept = []
        for image in images:
            cause = spoilt.get(image.path) or spoilt.get(image.annotation)
            if cause is not None:
                done.append(f'left out image {image.name}: {cause.file.name} {cause.message}')
            elif _mend_boxes(image, source.classes, done):
                kept.append(image)
        images[:] = kept
    done += [
        f'ignored {p.file}: {p.message}'
        for p in problems
        if p.kind in (WITHOUT_IMAGE, SECOND_ANNOTATION)
    ]
    return done


def _mend_boxes(image: SourceImage, classes: Sequence[str], done: list[str]) -> bool:
    """Mends an image's boxes; returns whether the image is still of use."""
    kept = []
    for box in image.boxes:
        mended, deed = _mend_box(box, image, classes)
        if mended is not None:
            kept.append(mended)
        if deed:
            done.append(f'{deed} in {image.name}')
    lost_all = bool(image.boxes) and not kept
    image.boxes = kept
    if lost_all:
        done.append(f'left out image {image.name}: none of its boxes could be kept')
    return not lost_all


def _mend_box(box: Box, image: SourceImage, classes: Sequence[str]) -> tuple[Box | None, str]:
    if box.label not in classes:
        return None, f'dropped a box of unknown class {box.label!r}'
    if not (box.width > 0 and box.height > 0):
        return None, f'dropped a box of {box.label} without area'
    if overhang(box, image) <= TOLERANCE:
        return box, ''
    clipped = clip(box, image)
    if clipped.width <= 0 or clipped.height <= 0:
        return None, f'dropped a box of {box.label} outside the image'
    return clipped, f'clipped a box of {box.label} to the image'
