"""Which images are labelled, held out and unlabelled after a merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmdsym.datasets.preparation.records import Source, SourceImage
from mmdsym.datasets.preparation.splitting import hold_out


def extend_subsets(
    source: Source,
    subsets: Mapping[str, Mapping[str, Sequence[str]]],
    confirmed: set[str],
    calibration_fraction: float,
) -> dict[str, dict[str, list[SourceImage]]]:
    """Adds newly labelled training images to each choice; what was held out stays held out.

    Args:
        source: The merged data set.
        subsets: Folder of each choice to its lists of image names before the merge.
        confirmed: Names of the images whose labels came back.
        calibration_fraction: Share of the new ones that calibrates, in (0, 1).

    Returns:
        Folder of each choice to its lists.
    """
    images = {image.name: image for image in source.images + source.unlabelled}
    training = {image.name for image in source.in_split('train')}
    extended = {}
    for folder, before in subsets.items():
        parts = {
            part: [images[name] for name in names if name in images]
            for part, names in before.items()
        }
        known = set(before.get('labelled', ()))
        new = [images[name] for name in sorted((confirmed & training) - known)]
        calibrating = _calibrating(new, parts, calibration_fraction)
        held = {image.name for image in calibrating}
        parts['labelled'] = parts.get('labelled', []) + new
        parts['burn_in'] = parts.get('burn_in', []) + [i for i in new if i.name not in held]
        parts['calibration'] = parts.get('calibration', []) + calibrating
        added = {image.name for image in new}
        left = [image for image in parts.get('unlabelled', []) if image.name not in added]
        parts['unlabelled'] = left or [i for i in source.in_split('train') if not i.known_good]
        if 'known_good' in parts:
            parts['known_good'] = [image for image in parts['known_good'] if image.known_good]
        extended[folder] = parts
    return extended


def _calibrating(
    new: Sequence[SourceImage], before: Mapping[str, Sequence[SourceImage]], fraction: float
) -> list[SourceImage]:
    """Chooses which new images calibrate; copies of older ones stay on the side of those."""
    learnt = {image.pixel_hash for image in before.get('burn_in', ())}
    held = {image.pixel_hash for image in before.get('calibration', ())} - learnt
    copies = [image for image in new if image.pixel_hash in held]
    fresh = [image for image in new if image.pixel_hash not in learnt | held]
    return hold_out(fresh, fraction, 0, 'calibration') + copies
