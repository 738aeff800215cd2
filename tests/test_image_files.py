"""Images of every depth: told apart by all of their bits, shown as training loads them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mmdsym import image_files
from mmdsym.datasets.loading import LoadCachedImageFromFile
from mmdsym.datasets.preparation import inspection
from mmdsym.datasets.preparation.inspection import measure, readable_size, unused_bits
from mmdsym.datasets.preparation.records import Source, SourceImage
from mmdsym.errors import UserError
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


def loaded_for_training(path: Path) -> np.ndarray:
    return LoadCachedImageFromFile().transform(dict(img_path=str(path)))['img'][..., ::-1]


def check_turned(path: Path, readable: bool) -> None:
    """Preparation and training see the same image, or preparation refuses it."""
    with open_image(path) as opened:
        size = image_files.upright(opened).size
    assert readable_size(path) == size
    if not readable:
        message = 'is turned by EXIF or XMP data that training does not read in a '
        assert message in measure(SourceImage(path, path.name))
        return
    image, loaded = measured(path), loaded_for_training(path)
    assert (image.width, image.height) == size == loaded.shape[1::-1]
    # Decoders of JPEG round differently.
    assert np.abs(np.asarray(read_rgb(path)).astype(int) - loaded).max() <= 2


SMOOTH = np.add.outer(np.arange(30) * 4, np.arange(40) * 3)[..., None].astype(np.uint8)
SMOOTH = SMOOTH + np.array([0, 5, 10], np.uint8)


@pytest.mark.parametrize('orientation', [1, 3, 6])
@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp', 'tif'])
def test_training_turns_images_as_preparation_does(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[image_files.ORIENTATION] = orientation
    options = {'lossless': True} if suffix == 'webp' else {'quality': 100}
    path = save(tmp_path / f'a.{suffix}', SMOOTH, exif=exif, **options)
    assert readable_size(path) == ((30, 40) if orientation == 6 else (40, 30))
    check_turned(path, readable=suffix != 'webp' or orientation == 1)


@pytest.mark.parametrize('orientation', [1, 6])
@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp', 'tif'])
def test_xmp_data_do_not_turn_in_preparation_alone(tmp_path, suffix, orientation):
    xmp = f'<x><rdf:Description tiff:Orientation="{orientation}"/></x>'
    text = PngImagePlugin.PngInfo()
    text.add_itxt('XML:com.adobe.xmp', xmp)
    options = {
        'jpg': {'xmp': xmp.encode(), 'quality': 100},
        'png': {'pnginfo': text},
        'webp': {'xmp': xmp.encode(), 'lossless': True},
        'tif': {'tiffinfo': {700: xmp.encode()}},
    }
    path = save(tmp_path / f'a.{suffix}', SMOOTH, **options[suffix])
    check_turned(path, readable=orientation == 1)


@pytest.mark.parametrize('suffix', ['bmp', 'jpg', 'png', 'tif', 'webp'])
@pytest.mark.parametrize('share', [0, 0.01, 0.3])
def test_training_names_an_image_that_is_empty_or_cut_off(tmp_path, suffix, share):
    path = save(tmp_path / f'a.{suffix}', COLOUR)
    whole = path.read_bytes()
    path.write_bytes(whole[: round(share * len(whole))])
    with pytest.raises(UserError, match=f'a.{suffix} cannot be read .OpenCV cannot decode it.'):
        loaded_for_training(path)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
        )

    header = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + header + chunk(b'IDAT', b'')


@pytest.mark.parametrize(
    ('size', 'refusal'),
    [
        ((16384, 12000), 'cannot be decoded'),
        ((20000, 15000), 'has 20000x15000 pixels, and no image of more than 268,435,456 is read'),
        ((40000, 30000), 'has more than 536,870,912 pixels, and no image of more than 268,435,456'),
    ],
)
def test_images_are_refused_beyond_a_limit_that_line_cameras_keep(tmp_path, size, refusal):
    path = tmp_path / 'a.png'
    path.write_bytes(png_header(*size))
    damage = measure(SourceImage(path, 'a.png'))
    assert damage.startswith(refusal)
    assert ('cut it into parts first' in damage) == (refusal != 'cannot be decoded')


def test_an_image_at_the_limit_is_read(tmp_path, monkeypatch):
    path = save(tmp_path / 'a.png', COLOUR)
    for limit, refused in ((1200, False), (1199, True)):
        monkeypatch.setattr(inspection, 'MOST_PIXELS', limit)
        monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', limit)
        assert ('has 40x30 pixels' in measure(SourceImage(path, 'a.png'))) == refused


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
