"""From a source to a prepared data set: the whole way in one function."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmdsym.datasets.preparation.card import make_card, render_card
from mmdsym.datasets.preparation.cocojson import CocoDocuments
from mmdsym.datasets.preparation.inspection import inspect, unused_bits
from mmdsym.datasets.preparation.known_good import choose_known_good
from mmdsym.datasets.preparation.mending import mend, refuse
from mmdsym.datasets.preparation.records import Problem, Source, SourceImage
from mmdsym.datasets.preparation.splitting import choose_labelled, hold_out
from mmdsym.datasets.preparation.tiles import TileChoice, cut_into_tiles
from mmdsym.datasets.preparation.writing import FileCopy, write_data_set
from mmdsym.errors import UserError

Subset = dict[str, list[SourceImage]]

WHOLE = 'whole'
"""Folder of the held-out images that tiles were cut from, and end of the names of their jsons."""


@dataclass(frozen=True)
class Choices:
    """What part of the training images is labelled.

    Args:
        fractions: Shares of the training images that are labelled, each in (0, 1].
        seeds: One choice is made for each.
        calibration_fraction: Share of the labelled images that is held out of burn-in, in (0, 1).

    Raises:
        UserError: When a number is out of its range.
    """

    fractions: Sequence[float] = (0.1, 0.2, 0.4, 1.0)
    seeds: Sequence[int] = (0, 1, 2)
    calibration_fraction: float = 0.15

    def __post_init__(self) -> None:
        for fraction in self.fractions:
            if not 0 < fraction <= 1:
                raise UserError(
                    f'--fractions {fraction:g} is outside (0, 1]; give 0.4 for 40 % of the labels'
                )
        if not 0 < self.calibration_fraction < 1:
            raise UserError(
                f'--calibration-fraction {self.calibration_fraction:g} is outside (0, 1); '
                '0.15 holds out 15 % of the labelled images'
            )


def prepare(
    source: Source,
    name: str,
    out: Path,
    choices: Choices | None = None,
    fix: bool = False,
    force: bool = False,
    tiles: TileChoice | None = None,
) -> bool:
    """Checks a source, chooses labelled images and writes the data set to `out/name`.

    Args:
        source: What was read; its images have their splits. It is changed when mended.
        name: Name of the data set.
        out: Folder of all data sets.
        choices: What part of the training images is labelled.
        fix: Whether to clip and drop what can be mended instead of refusing.
        force: Whether an existing data set that differs may be replaced.
        tiles: Cuts the images into tiles, once it is settled what is labelled and held out.

    Returns:
        False when the same data set was there already.

    Raises:
        UserError: When the source would spoil a run, or `out/name` holds something else.
    """
    problems = inspect(source)
    mended: list[str] = []
    if fix:
        mended = mend(source, problems)
    else:
        refuse(problems)
    _require_images(source)
    subsets = choose_subsets(source, choices or Choices())
    source.notes += [*remarks_on(source, subsets), *unused_bits(source)]
    if tiles is None:
        return write_prepared(source, subsets, out / name, problems, mended, force)
    with cut_into_tiles(source, subsets, tiles, out) as (tiled, lists):
        return write_prepared(tiled, lists, out / name, problems, mended, force)


def write_prepared(
    source: Source,
    subsets: Mapping[str, Subset],
    target: Path,
    problems: Sequence[Problem],
    mended: Sequence[str],
    force: bool = False,
) -> bool:
    """Prints the data card and writes a data set whose images and choices are settled.

    Args:
        source: Inspected and free of problems.
        subsets: As `choose_subsets` returns them.
        target: Folder of the data set.
        problems: What was found wrong.
        mended: What was done about that.
        force: Whether an existing data set that differs may be replaced.

    Returns:
        False when the same data set was there already.

    Raises:
        UserError: When the target holds something else.
    """
    card = make_card(target.name, source, problems, mended, subsets)
    # Names that are no UTF-8 may stand in what was mended.
    page = render_card(card).encode(errors='backslashreplace').decode()
    print(page)
    plan = _plan(source, subsets)
    plan['dataset_card.md'] = page.encode()
    plan['dataset_card.json'] = json.dumps(card, indent=1, ensure_ascii=False).encode(
        errors='backslashreplace'
    )
    return write_data_set(plan, target, force)


def choose_subsets(source: Source, choices: Choices) -> dict[str, Subset]:
    """Chooses labelled, burn-in, calibration and unlabelled images for each fraction and seed.

    Known-good images stand beside the chosen ones in every choice: no fraction counts them.

    Returns:
        Folder name, such as `40pct_seed0`, to its four lists, and a list of its known-good images
        where there are any.
    """
    train = _with_labels(source)
    subsets = {}
    if source.paper_labelled is not None:
        labelled = [image for image in train if image.name in source.paper_labelled]
        subsets['paper_seed0'] = _complete(source, labelled, choices.calibration_fraction, 0)
    for fraction in sorted(set(choices.fractions)):
        for seed in sorted(set(choices.seeds)):
            labelled = choose_labelled(train, fraction, seed)
            subsets[f'{100 * fraction:g}pct_seed{seed}'] = _complete(
                source, labelled, choices.calibration_fraction, seed
            )
    return subsets


def _with_labels(source: Source) -> list[SourceImage]:
    """The training images but the known-good ones, sorted by name."""
    return [image for image in source.in_split('train') if not image.known_good]


def _complete(
    source: Source, labelled: list[SourceImage], calibration_fraction: float, seed: int
) -> Subset:
    train = _with_labels(source)
    good = [image for image in source.in_split('train') if image.known_good]
    chosen = choose_known_good(good, len(labelled), seed)
    calibration = hold_out(labelled, calibration_fraction, seed, 'calibration')
    calibration += hold_out(chosen, calibration_fraction, seed, 'calibration')
    calibrating = {image.name for image in calibration}
    known = {image.name for image in labelled}
    # With every label in use, the same pixels still serve as unlabelled ones.
    rest = [image for image in train if image.name not in known]
    unlabelled = (rest + source.unlabelled) or train
    labelled = labelled + chosen
    subset = {
        'labelled': labelled,
        'burn_in': [image for image in labelled if image.name not in calibrating],
        'calibration': calibration,
        'unlabelled': unlabelled,
    }
    return subset | {'known_good': chosen} if chosen else subset


def _plan(source: Source, subsets: Mapping[str, Subset]) -> dict[str, bytes | FileCopy]:
    whole = [replace(image, name=f'{WHOLE}/{image.name}') for image in source.whole]
    everything = source.images + source.unlabelled + whole
    documents = CocoDocuments(source.classes, everything, source.tiling)
    plan: dict[str, bytes | FileCopy] = {
        f'images/{image.name}': FileCopy(image.path, image.file_hash) for image in everything
    }
    for split in ('train', 'val', 'test'):
        if split != 'test' or source.in_split(split):
            plan[f'annotations/{split}.json'] = documents.document(source.in_split(split))
    for split in {image.split for image in whole}:
        images = [image for image in whole if image.split == split]
        plan[f'annotations/{split}_{WHOLE}.json'] = documents.document(images)
    for folder, parts in subsets.items():
        for part, images in parts.items():
            plan[f'annotations/{folder}/{part}.json'] = documents.document(
                images, with_boxes=part != 'unlabelled'
            )
    return plan


def _require_images(source: Source) -> None:
    for split, purpose in (('train', 'training'), ('val', 'validation')):
        images = source.in_split(split)
        if not any(image.boxes for image in images):
            raise UserError(
                f'{source.root} holds no {purpose} image with a box; '
                'check its annotations, or choose another --split or --layout'
            )


def remarks_on(source: Source, subsets: Mapping[str, Subset]) -> list[str]:
    """What a user should know about the data that no number of the card says."""
    remarks = []
    used = source.images + source.unlabelled
    resized = [i for i in used if i.declared_size and i.declared_size != (i.width, i.height)]
    if resized:
        remarks.append(
            f'{len(resized)} annotations state another image size than the image has, such as '
            f'that of {resized[0].name}; boxes were read in pixels of the image as it is.'
        )
    trained = {label for image in source.in_split('train') for label in image.labels}
    absent = [label for label in source.classes if label not in trained]
    if absent:
        remarks.append(f'No training box of: {", ".join(absent)}.')
    unjudged = [name for name, parts in subsets.items() if not parts['calibration']]
    if unjudged:
        remarks.append(
            f'Too few labelled images to calibrate on: {", ".join(unjudged)}. DSYM cannot train on '
            'these: label more, or take a larger share.'
        )
    trainable = len(_with_labels(source))
    used_labels = [len(p['labelled']) - len(p.get('known_good', [])) for p in subsets.values()]
    if trainable in used_labels:
        if source.unlabelled:
            remarks.append('Where all labels are used, only the extra images are unlabelled.')
        else:
            remarks.append(
                'Where all labels are used, the training images serve as unlabelled ones too, '
                'without their boxes.'
            )
    return remarks + _remarks_on_extra_images(source, subsets)


def _remarks_on_extra_images(source: Source, subsets: Mapping[str, Subset]) -> list[str]:
    remarks = []
    training = {image.pixel_hash for image in source.in_split('train')}
    repeated = [image.name for image in source.unlabelled if image.pixel_hash in training]
    if repeated:
        remarks.append(
            f'{len(repeated)} unlabelled images have the pixels of a training image, such as '
            f'{repeated[0]}.'
        )
    twice = Counter(image.pixel_hash for image in source.unlabelled)
    copies = sum(count - 1 for count in twice.values())
    if copies:
        remarks.append(f'{copies} unlabelled images have the pixels of another unlabelled one.')
    good = sum(image.known_good for image in source.in_split('train'))
    fewest = min((len(parts.get('known_good', [])) for parts in subsets.values()), default=good)
    if fewest < good:
        remarks.append(
            f'There are more known-good images ({good}) than labelled ones in some choices: as '
            'many as there are labelled images are used there.'
        )
    return remarks
