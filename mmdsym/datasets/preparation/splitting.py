"""Stratified choices of images that depend on names and seed alone.

An image's place is drawn from a hash of the seed and its name, never from the order in which
files were listed, so the same data give the same split on every machine.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from mmdsym.datasets.preparation.records import SourceImage

NO_CLASS = ''

Group = tuple[SourceImage, ...]
"""Images with the same pixels."""


def strata_of(images: Sequence[SourceImage]) -> dict[str, str]:
    """Files each image under one class.

    The source's own filing counts where there is one. Otherwise it is the rarest of the image's
    classes (by images that show it), so that rare classes are spread as evenly as frequent ones.

    Returns:
        Image name to class name; images without box are filed under `NO_CLASS`.
    """
    frequency = Counter(label for image in images for label in image.labels)

    def rarest(image: SourceImage) -> str:
        return min(image.labels, key=lambda label: (frequency[label], label), default=NO_CLASS)

    return {image.name: image.stratum or rarest(image) for image in images}


def stratified_order(
    images: Sequence[SourceImage], seed: int, purpose: str
) -> tuple[list[SourceImage], int]:
    """Orders images so that every beginning of the list is stratified.

    Args:
        images: Images to order.
        seed: Another seed gives another order.
        purpose: Keeps choices for different purposes independent of each other.

    Returns:
        The ordered images, and how many of the first ones it takes to show every class.
    """
    strata: dict[str, list[SourceImage]] = defaultdict(list)
    stratum_of = strata_of(images)
    for image in sorted(images, key=lambda i: (_draw(i.name, seed, purpose), i.name)):
        strata[stratum_of[image.name]].append(image)
    place = {
        image.name: ((rank + 0.5) / len(members), stratum)
        for stratum, members in strata.items()
        for rank, image in enumerate(members)
    }
    ordered = sorted(images, key=lambda i: (place[i.name], i.name))
    cover = _cover_every_class(ordered, stratum_of)
    covering = {image.name for image in cover}
    return cover + [image for image in ordered if image.name not in covering], len(cover)


def choose_labelled(images: Sequence[SourceImage], fraction: float, seed: int) -> list[SourceImage]:
    """Chooses the images whose labels are used.

    For one seed a smaller fraction is part of a larger one. Every class has an image, even where
    the fraction alone would leave none.

    Args:
        images: All training images.
        fraction: Share of them, in (0, 1].
        seed: Another seed gives another choice.
    """
    ordered, covering = stratified_order(images, seed, 'labelled')
    return ordered[: max(round(fraction * len(images)), covering)]


def hold_out(
    images: Sequence[SourceImage], fraction: float, seed: int, purpose: str
) -> list[SourceImage]:
    """Chooses images to keep from training: for validation, or for choosing thresholds.

    Images with the same pixels stay together, so that nothing is judged by what was learnt. Every
    class with two or more different images has one here, and keeps one outside wherever both can
    be had.

    Args:
        images: The images to choose from.
        fraction: Share of them, in (0, 1).
        seed: Another seed gives another choice.
        purpose: Such as `'calibration'`; another purpose gives another choice.
    """
    ordered, _ = stratified_order(images, seed, purpose)
    groups = _copies_together(ordered)
    remaining = Counter(label for group in groups for label in _labels(group))
    wanted = sorted(
        (label for label in remaining if remaining[label] >= 2),
        key=lambda label: (remaining[label], label),
    )
    chosen: dict[str, SourceImage] = {}

    def spares(group: Group) -> bool:
        return all(remaining[label] >= 2 for label in _labels(group))

    def take(group: Group) -> None:
        chosen.update({image.name: image for image in group})
        remaining.subtract(_labels(group))

    for label in wanted:
        if not any(label in image.labels for image in chosen.values()):
            candidates = [group for group in groups if label in _labels(group)]
            # Many copies would eat up what is held out; the first of the smallest is taken.
            take(min(candidates, key=lambda group: (not spares(group), len(group))))
    for group in groups:
        fits = len(chosen) + len(group) <= round(fraction * len(images))
        if fits and group[0].name not in chosen and spares(group):
            take(group)
    return list(chosen.values())


def _copies_together(ordered: Sequence[SourceImage]) -> list[Group]:
    """Groups images of the same pixels, in order of their first; most groups have one member."""
    groups: dict[str, list[SourceImage]] = defaultdict(list)
    for image in ordered:
        # Before inspection nobody knows the pixels.
        groups[image.pixel_hash or f'name {image.name}'].append(image)
    return [tuple(group) for group in groups.values()]


def _labels(group: Group) -> set[str]:
    return {label for image in group for label in image.labels}


def _draw(name: str, seed: int, purpose: str) -> str:
    # Without the extension: converting all images to another format changes no choice.
    stem = PurePosixPath(name).with_suffix('').as_posix()
    # A name need not be UTF-8; one that is not is told later.
    return hashlib.sha256(f'{purpose}/{seed}/{stem}'.encode(errors='surrogatepass')).hexdigest()


def _cover_every_class(
    ordered: Sequence[SourceImage], stratum_of: dict[str, str]
) -> list[SourceImage]:
    """The first images in order that together show every class, rarest class first."""
    frequency = Counter(label for image in ordered for label in image.labels)
    cover: list[SourceImage] = []
    for label in sorted(frequency, key=lambda label: (frequency[label], label)):
        if any(label in image.labels for image in cover):
            continue
        showing = [image for image in ordered if label in image.labels]
        # An image filed under the class keeps the strata balanced.
        cover.append(min(showing, key=lambda i: stratum_of[i.name] != label))
    return cover
