"""Cutting a source's images into tiles, after it was decided what is labelled and held out."""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from PIL import Image
from tqdm import tqdm

from mmdsym.datasets.preparation.leavings import scratch_folder
from mmdsym.datasets.preparation.records import Box, Source, SourceImage, TileOrigin
from mmdsym.errors import UserError
from mmdsym.image_files import open_image, upright
from mmdsym.tiling import Tiling, Window, cut_box, visible_share

UNLABELLED = 'unlabelled'
_TILE_SUFFIX = re.compile(r'__x\d{5,}_y\d{5,}$')
PNG_MODES = frozenset({'1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16'})

Subset = dict[str, list[SourceImage]]


@dataclass(frozen=True)
class TileChoice:
    """Which tiles a data set gets, and which boxes they have.

    Args:
        tiling: Where tiles lie.
        visible_share: Share of a box, in (0, 1], that a tile must show for the box to count there.
            Of a box that shows less, the rest is marked to be ignored: it is no defect to be
            found, and no background either.
        empty_share: Share of the tiles in which no box is known that is kept, in [0, 1]: of a
            labelled image those without any box, of an unlabelled image all. Which ones is drawn
            from their names, never from labels.

    Raises:
        UserError: A share is out of its range.
    """

    tiling: Tiling
    visible_share: float = 0.5
    empty_share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.visible_share <= 1:
            raise UserError(
                f'--visible-share {self.visible_share:g} is outside (0, 1]; 0.5 keeps a box of '
                'which a tile shows half'
            )
        if not 0 <= self.empty_share <= 1:
            raise UserError(
                f'--empty-tiles {self.empty_share:g} is outside [0, 1]; 0.1 keeps a tenth of the '
                'tiles without a box'
            )


@dataclass(frozen=True)
class ImageTiles:
    """The tiles of one image that are of use.

    Args:
        labelled: Those to learn labels from: all with a box, and a share of those without.
        unlabelled: Those to be used without labels: a share of all.
    """

    labelled: list[SourceImage]
    unlabelled: list[SourceImage]

    @property
    def both(self) -> list[SourceImage]:
        """Each tile once, in order of their names."""
        return sorted({t.name: t for t in self.labelled + self.unlabelled}.values(), key=_name)


@contextmanager
def cut_into_tiles(
    source: Source, subsets: Mapping[str, Subset], choice: TileChoice, scratch: Path
) -> Iterator[tuple[Source, dict[str, Subset]]]:
    """Yields a source of tiles, whose files lie on disk for the time of the context.

    All tiles of an image stay where the image was: in its split, and in its lists. Held-out images
    stay beside their tiles as they are, to be evaluated as a whole.

    Args:
        source: Inspected and free of problems. It is not changed.
        subsets: As :func:`mmdsym.datasets.preparation.prepare.choose_subsets` returns them.
        choice: Which tiles are made.
        scratch: Folder below which the files lie.

    Raises:
        UserError: Two images would give tiles of one name, or SAHI is not installed.
    """
    everything = source.images + source.unlabelled
    _refuse_same_stems(everything)
    cut = {image.name: tiles_of(image, choice) for image in everything}
    tiled = replace(
        source,
        images=[tile for image in source.images for tile in _in_use(image, cut)],
        unlabelled=[tile for image in source.unlabelled for tile in cut[image.name].unlabelled],
        tiling=choice.tiling,
        whole=[image for image in source.images if image.split != 'train'],
        notes=[*source.notes, *_remarks(source, cut, choice)],
    )
    with scratch_folder(scratch, '.tiles') as folder:
        wanted = tiled.images + tiled.unlabelled
        _save_tiles(everything, wanted, folder)
        yield tiled, {name: _subset(parts, cut) for name, parts in subsets.items()}


def tiles_of(image: SourceImage, choice: TileChoice) -> ImageTiles:
    """Cuts the record of one image; no pixel is read and no file written."""
    tiles = [
        _tile(image, window, choice) for window in choice.tiling.windows(image.width, image.height)
    ]
    showing = [tile for tile in tiles if any(not box.ignore for box in tile.boxes)]
    # A tile with nothing but the rest of a cut box teaches neither a defect nor background.
    bare = [tile for tile in tiles if not tile.boxes]
    labelled = sorted(showing + _draw(bare, choice.empty_share), key=_name)
    return ImageTiles(labelled, _draw(tiles, choice.empty_share))


def tile_name(image_name: str, window: Window) -> str:
    """Name of a tile: that of its image, and where its upper left corner lies in it."""
    path = PurePosixPath(image_name)
    return path.with_name(f'{path.stem}__x{window.x1:05d}_y{window.y1:05d}.png').as_posix()


def image_of(name: str) -> str:
    """Name of the image that a file shows, without its suffix if it is a tile of one."""
    path = PurePosixPath(name)
    stem = _TILE_SUFFIX.sub('', path.stem)
    return name if stem == path.stem else path.with_name(stem).as_posix()


def _tile(image: SourceImage, window: Window, choice: TileChoice) -> SourceImage:
    return replace(
        image,
        name=tile_name(image.name, window),
        boxes=[b for box in image.boxes if (b := _cut(box, window, choice.visible_share))],
        declared_size=None,
        width=window.x2 - window.x1,
        height=window.y2 - window.y1,
        file_hash='',
        pixel_hash='',
        tile=TileOrigin(image.name, window.x1, window.y1),
    )


def _cut(box: Box, window: Window, least: float) -> Box | None:
    edges = (box.x1, box.y1, box.x2, box.y2)
    share = visible_share(edges, window)
    if share == 0:
        return None
    return Box(*cut_box(edges, window), box.label, box.ignore or share < least)


def _draw(tiles: Sequence[SourceImage], share: float) -> list[SourceImage]:
    """A share of the tiles, at least one where the share is not 0, by a hash of their names."""
    ordered = sorted(tiles, key=lambda tile: hashlib.sha256(tile.name.encode()).hexdigest())
    return sorted(ordered[: math.ceil(share * len(tiles))], key=_name)


def _in_use(image: SourceImage, cut: Mapping[str, ImageTiles]) -> list[SourceImage]:
    # What is held out is never used without its labels.
    return cut[image.name].both if image.split == 'train' else cut[image.name].labelled


def _subset(parts: Subset, cut: Mapping[str, ImageTiles]) -> Subset:
    return {
        part: [
            tile
            for image in images
            for tile in (
                cut[image.name].unlabelled if part == UNLABELLED else cut[image.name].labelled
            )
        ]
        for part, images in parts.items()
    }


def _save_tiles(images: Sequence[SourceImage], tiles: Sequence[SourceImage], folder: Path) -> None:
    """Writes the tiles' files and notes their places and hashes."""
    of_image: dict[str, list[SourceImage]] = {}
    for tile in tiles:
        of_image.setdefault(tile.tile.image, []).append(tile)
    for image in tqdm(images, desc='cutting tiles', unit='image', disable=None):
        with open_image(image.path) as opened:
            pixels = upright(opened)
            pixels = pixels if pixels.mode in PNG_MODES else pixels.convert('RGB')
            for tile in of_image.get(image.name, ()):
                _save_tile(tile, pixels, folder)


def _save_tile(tile: SourceImage, pixels: Image.Image, folder: Path) -> None:
    x, y = tile.tile.x, tile.tile.y
    data = io.BytesIO()
    pixels.crop((x, y, x + tile.width, y + tile.height)).save(data, format='PNG')
    tile.path = folder / tile.name
    tile.path.parent.mkdir(parents=True, exist_ok=True)
    tile.path.write_bytes(data.getvalue())
    tile.file_hash = hashlib.sha256(data.getvalue()).hexdigest()


def _refuse_same_stems(images: Sequence[SourceImage]) -> None:
    stems = Counter(PurePosixPath(image.name).with_suffix('') for image in images)
    twice = [image.name for image in images if stems[PurePosixPath(image.name).with_suffix('')] > 1]
    if twice:
        raise UserError(
            f'{" and ".join(sorted(twice)[:2])} would give tiles of the same names; rename one'
        )


def _remarks(source: Source, cut: Mapping[str, ImageTiles], choice: TileChoice) -> list[str]:
    """What tiling did, and which boxes suffered from it."""
    tiling = choice.tiling
    boxes = [(image, box) for image in source.images for box in image.boxes if not box.ignore]
    large = sum(max(box.width, box.height) > tiling.shared_pixels for _, box in boxes)
    lost = sum(not _is_shown(image, box, choice) for image, box in boxes)
    count = sum(len(_in_use(image, cut)) for image in source.images)
    remarks = [
        f'Tiles of {tiling.size} px, neighbours share {tiling.shared_pixels} px: '
        f'{len(source.images)} labelled images gave {count} tiles. A box counts where '
        f'{choice.visible_share:g} of it is seen; of the tiles without a known box '
        f'{choice.empty_share:g} is kept.'
    ]
    if large:
        remarks.append(
            f'{large} boxes are longer than what neighbouring tiles share, so that they may be '
            'whole in none: raise --overlap or --tile.'
        )
    if lost:
        remarks.append(f'{lost} boxes count in no tile, since none shows enough of them.')
    return remarks


def _is_shown(image: SourceImage, box: Box, choice: TileChoice) -> bool:
    edges = (box.x1, box.y1, box.x2, box.y2)
    windows = choice.tiling.windows(image.width, image.height)
    return any(visible_share(edges, window) >= choice.visible_share for window in windows)


def _name(image: SourceImage) -> str:
    return image.name
