"""Deciding which images train and which are held out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from mmdsym.datasets.preparation.records import Source, SourceImage
from mmdsym.datasets.preparation.sources import neu
from mmdsym.datasets.preparation.sources.files import IMAGE_SUFFIXES
from mmdsym.datasets.preparation.splitting import hold_out
from mmdsym.errors import UserError


def assign_splits(source: Source, split: Sequence[str], val_fraction: float) -> None:
    """Gives every image of a source its split.

    Args:
        source: The source; its images get `split`, and notes say how it was decided.
        split: `['default']`, `['paper']`, or one or two list files (training and, if given,
            validation).
        val_fraction: Share of the images to hold out where nothing else decides, in (0, 1).

    Raises:
        UserError: When a list is missing, names unknown images, or overlaps with another.
    """
    if not 0 < val_fraction < 1:
        raise UserError(f'--val-fraction {val_fraction:g} is outside (0, 1); 0.2 holds out a fifth')
    if list(split) == ['paper']:
        _assign_paper(source)
    elif list(split) == ['default']:
        _assign_default(source, val_fraction)
    elif len(split) <= 2:
        _assign_lists(source, [Path(path) for path in split])
    else:
        raise UserError('--split takes default, paper, or one or two list files')
    _set_aside_unannotated(source)


def read_list(path: Path, images: Sequence[SourceImage]) -> set[str]:
    """The names of the images that a list file names, one a line, with or without extension.

    Raises:
        UserError: When the file is missing or no text, or a line fits no image or several.
    """
    if not path.is_file():
        raise UserError(f'the list {path} does not exist; check --split')
    known: dict[str, set[str]] = {}
    for image in images:
        for key in (image.name, image.path.name, image.stem):
            known.setdefault(key, set()).add(image.name)
    try:
        text = path.read_text('utf-8-sig')
    except ValueError as error:
        raise UserError(
            f'the list {path} is no text in UTF-8; give one with a name of an image in each line'
        ) from error
    lines = [line.strip() for line in text.split('\n') if line.strip()]
    chosen, wrong = set(), []
    for line in lines:
        entry = PureWindowsPath(line)
        stem = entry.stem if entry.suffix.lower() in IMAGE_SUFFIXES else entry.name
        fits = known.get(line) or known.get(entry.name) or known.get(stem) or set()
        chosen |= fits
        if len(fits) != 1:
            wrong.append(line)
    if wrong:
        raise UserError(
            f'{len(wrong)} of {len(lines)} lines of {path} do not name exactly one image of '
            f'the source, such as {wrong[0][:80]!r}; correct the list'
        )
    return chosen


def _assign_default(source: Source, val_fraction: float) -> None:
    present = {image.split for image in source.images} - {None}
    if not present and neu.has_default_split(source.images):
        neu.apply_default_split(source.images)
        source.notes.append('Split: files 1..240 of each class train, 241..300 validate.')
    elif not present:
        _hold_out(source, source.images, val_fraction)
    elif 'train' not in present:
        raise UserError(
            f'{source.root} has validation or test images but no training images; name its '
            'training folder train, or give list files with --split'
        )
    elif 'val' in present:
        source.notes.append('Split: as the source has it.')
    elif 'test' in present:
        source.notes.append('Split: as the source has it; its test images validate.')
        for image in source.images:
            image.split = 'val' if image.split == 'test' else image.split
    else:
        _hold_out(source, source.in_split('train'), val_fraction)
    _leave_out(source, 'belong to no split of the source')


def _hold_out(source: Source, images: Sequence[SourceImage], val_fraction: float) -> None:
    annotated = [image for image in images if image.annotation is not None]
    held_out = {image.name for image in hold_out(annotated, val_fraction, 0, 'validation')}
    for image in images:
        image.split = 'val' if image.name in held_out else 'train'
    source.notes.append(
        f'Split: {val_fraction:g} of the annotated images, stratified by class, validate.'
    )


def _assign_paper(source: Source) -> None:
    folder = source.root / 'splits'
    lists = {
        part: folder / f'paper_{part}.txt' for part in ('train', 'test', 'labeled', 'unlabeled')
    }
    if not all(path.is_file() for path in lists.values()):
        raise UserError(
            f'--split paper needs {folder} with paper_train.txt, paper_test.txt, '
            'paper_labeled.txt and paper_unlabeled.txt; add them or use --split default'
        )
    names = {part: read_list(path, source.images) for part, path in lists.items()}
    if names['labeled'] - names['train'] or names['labeled'] & names['unlabeled']:
        raise UserError(f'the lists in {folder} contradict each other; restore the published ones')
    _apply(source, names['train'], names['test'], 'the lists of the paper')
    source.paper_labelled = names['labeled']


def _assign_lists(source: Source, paths: Sequence[Path]) -> None:
    train = read_list(paths[0], source.images)
    everything = {image.name for image in source.images}
    val = read_list(paths[1], source.images) if len(paths) == 2 else everything - train
    _apply(source, train, val, ' and '.join(path.name for path in paths))


def _apply(source: Source, train: set[str], val: set[str], origin: str) -> None:
    common = sorted(train & val)
    if common:
        raise UserError(
            f'{len(common)} images are in both lists ({origin}), such as {common[0]}; '
            'each may be in one only'
        )
    for image in source.images:
        image.split = 'train' if image.name in train else 'val' if image.name in val else None
    source.notes.append(f'Split: {origin}.')
    _leave_out(source, 'are in none of the lists')


def _leave_out(source: Source, reason: str) -> None:
    left_out = [image for image in source.images if image.split is None]
    if left_out:
        source.images = [image for image in source.images if image.split is not None]
        source.notes.append(f'{len(left_out)} images {reason} and were left out.')


def _set_aside_unannotated(source: Source) -> None:
    """Training images without annotation are unlabelled, not free of defects."""
    bare = [image for image in source.images if image.annotation is None]
    if not bare:
        return
    training = [image for image in bare if image.split == 'train']
    source.images = [image for image in source.images if image.annotation is not None]
    source.unlabelled += training
    source.images_without_annotation = len(bare)
    if training:
        source.notes.append(
            f'{len(training)} training images have no annotation and serve as unlabelled images; '
            'give an image without defect an empty annotation to use it as such.'
        )
    if len(bare) > len(training):
        source.notes.append(
            f'{len(bare) - len(training)} held-out images have no annotation and were left out.'
        )
