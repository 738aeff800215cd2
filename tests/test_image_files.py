"""Images of every depth: told apart by all of their bits, shown as training loads them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mmdsym.datasets.preparation.inspection import measure, readable_size, unused_bits
from mmdsym.datasets.preparation.records import Source, SourceImage
from mmdsym.image_files import FORMATS, as_rgb, open_image, read_rgb

GREY = np.random.default_rng(5).integers(0, 256, (30, 40), dtype=np.uint8)
DEEP = np.random.default_rng(6).integers(0, 2**16, (30, 40), dtype=np.uint16)
COLOUR = np.random.default_rng(7).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def measured(path: Path) -> SourceImage:
    image = SourceImage(path, path.name)
    assert measure(image) == ''
    return image


def save(path: Path, image: np.ndarray | Image.Image, **options) -> Path:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(path, **options)
    return path


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
@pytest.mark.parametrize(
    'other',
    [np.maximum(DEEP, 300) + 0, DEEP ^ 1, np.where(DEEP > 255, 65535, DEEP)],
    ids=['dark pixels', 'last bit', 'clipped'],
)
def test_images_of_16_bits_are_told_apart_by_every_bit(tmp_path, suffix, other):
    first = save(tmp_path / f'a{suffix}', DEEP)
    second = save(tmp_path / f'b{suffix}', other.astype(np.uint16))
    copy = save(tmp_path / 'copy.png', DEEP)
    assert measured(first).pixel_hash != measured(second).pixel_hash
    assert measured(first).pixel_hash == measured(copy).pixel_hash


def test_the_same_pixels_are_the_same_image_in_every_format(tmp_path):
    grey = Image.fromarray(GREY)
    ways = [grey, grey.convert('RGB'), grey.convert('P'), grey.convert('LA'), grey.convert('RGBA')]
    paths = [save(tmp_path / f'{i}.png', image) for i, image in enumerate(ways)]
    paths += [save(tmp_path / 'a.bmp', grey), save(tmp_path / 'a.webp', grey, lossless=True)]
    assert len({measured(path).pixel_hash for path in paths}) == 1
    other = save(tmp_path / 'b.png', 255 - GREY)
    assert measured(other).pixel_hash != measured(paths[0]).pixel_hash


MODES = {
    '1 bit': Image.fromarray(GREY).convert('1'),
    'grey': Image.fromarray(GREY),
    '16 bits': Image.fromarray(DEEP),
    'colour': Image.fromarray(COLOUR),
    'palette': Image.fromarray(COLOUR).quantize(16),
    'grey and alpha': Image.fromarray(np.dstack([GREY, GREY.T.reshape(30, 40)])),
    'alpha': Image.fromarray(np.dstack([COLOUR, GREY])),
}


@pytest.mark.parametrize('mode', MODES)
def test_images_are_shown_as_training_loads_them(tmp_path, mode):
    path = save(tmp_path / 'a.png', MODES[mode])
    loaded = cv2.imread(str(path))[..., ::-1]
    assert np.array_equal(np.asarray(read_rgb(path)), loaded)


def test_a_palette_with_transparency_keeps_its_colours(tmp_path):
    path = save(tmp_path / 'a.png', MODES['palette'], transparency=3)
    assert np.array_equal(np.asarray(read_rgb(path)), cv2.imread(str(path))[..., ::-1])


def test_cmyk_is_as_in_training_but_for_a_grey_level(tmp_path):
    path = save(tmp_path / 'a.jpg', Image.fromarray(COLOUR).convert('CMYK'))
    difference = np.asarray(read_rgb(path)).astype(int) - cv2.imread(str(path))[..., ::-1]
    assert np.abs(difference).max() <= 2


@pytest.mark.parametrize(
    ('highest', 'used'), [(2**16, None), (2**15, None), (2**14, 14), (2**12, 12)]
)
def test_a_camera_that_leaves_bits_unused_is_told(tmp_path, highest, used):
    pixels = np.full((30, 40), highest - 1, np.uint16)
    source = Source('voc', tmp_path, ['dent'], [])
    for name, content in (('a.png', pixels), ('b.png', pixels // 2), ('c.png', COLOUR)):
        image = SourceImage(save(tmp_path / name, content), name)
        assert measure(image) == ''
        source.images.append(image)
    told = unused_bits(source)
    assert len(told) == (used is not None)
    if used:
        assert told[0].startswith(f'2 images of 16 bits use {used} of them (no pixel is above')


def test_images_are_turned_as_their_exif_data_say(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / 'a.png', COLOUR, exif=exif)
    assert np.array_equal(np.asarray(read_rgb(path)), cv2.imread(str(path))[..., ::-1])
    assert readable_size(path) == (30, 40) == (measured(path).width, measured(path).height)


@pytest.mark.parametrize('pixels', [DEEP.astype(np.int32) * 900, DEEP.astype(np.float32)])
def test_32_bits_are_refused_before_training_fails_on_them(tmp_path, pixels):
    path = save(tmp_path / 'a.tif', pixels)
    assert cv2.imread(str(path)) is None
    assert 'save it with 8 or 16' in measure(SourceImage(path, 'a.tif'))


@pytest.mark.parametrize('kind', ['EPS', 'PPM', 'GIF', 'TGA', 'PCX', 'ICO', 'PDF'])
def test_no_other_decoder_runs_whatever_a_file_is_called(tmp_path, kind):
    assert kind not in FORMATS
    path = save(tmp_path / 'a.png', COLOUR, format=kind)
    assert 'cannot be decoded' in measure(SourceImage(path, 'a.png'))
    assert readable_size(path) is None
    with pytest.raises(OSError), open_image(path):
        pass


def test_16_bits_are_reduced_by_leaving_out_the_lower_8():
    image = Image.fromarray(np.array([[0, 255, 256, 65535]], np.uint16))
    assert np.asarray(as_rgb(image))[0, :, 0].tolist() == [0, 0, 1, 255]
