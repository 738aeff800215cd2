"""Refusing a source that would spoil a run, or mending it when the user asks for that."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from mmdsym.datasets.preparation.inspection import TOLERANCE, clip, overhang
from mmdsym.datasets.preparation.records import (
    EMPTY_BOX,
    OUTSIDE,
    UNKNOWN_CLASS,
    Box,
    Problem,
    Source,
    SourceImage,
)
from mmdsym.errors import UserError

MAX_LINES = 20
BOX_PROBLEMS = frozenset({EMPTY_BOX, OUTSIDE, UNKNOWN_CLASS})


def refuse(problems: Sequence[Problem]) -> None:
    """Raises with one line per file and at most `MAX_LINES` of them.

    Raises:
        UserError: When there is any problem.
    """
    if not problems:
        return
    counts = ', '.join(f'{n} x {kind}' for kind, n in Counter(p.kind for p in problems).items())
    by_file: dict[Path, list[Problem]] = defaultdict(list)
    for problem in problems:
        by_file[problem.file].append(problem)
    lines = [
        f'  {found[0]}' + (f' (and {len(found) - 1} more in this file)' if found[1:] else '')
        for found in by_file.values()
    ]
    if len(lines) > MAX_LINES:
        lines[MAX_LINES:] = [f'  and {len(lines) - MAX_LINES} more files']
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
    spoilt = {p.image: p for p in problems if p.image}
    for images in (source.images, source.unlabelled):
        kept = []
        for image in images:
            cause = spoilt.get(image.name)
            if cause is not None:
                done.append(f'left out image {image.name}: {cause.file.name} {cause.message}')
            elif _mend_boxes(image, source.classes, done):
                kept.append(image)
        images[:] = kept
    done += [
        f'ignored {p.file}: {p.message}'
        for p in problems
        if not p.image and p.kind not in BOX_PROBLEMS
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
    if not (0 < box.width < math.inf and 0 < box.height < math.inf):
        return None, f'dropped a box of {box.label} without area'
    if overhang(box, image) <= TOLERANCE:
        return box, ''
    clipped = clip(box, image)
    if clipped.width <= 0 or clipped.height <= 0:
        return None, f'dropped a box of {box.label} outside the image'
    return clipped, f'clipped a box of {box.label} to the image'
