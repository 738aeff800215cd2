"""Detects defects with an exported ONNX file; needs onnxruntime, numpy and Pillow, nothing else.

A detector that was trained on tiles looks at tiles here as well, and boxes are merged on the whole.

Copy this file and the .onnx file to the machine at the line. Boxes are in pixels of the image as it
is shown, upright. An image that cannot be read is named and left out; the others are done, and the
exit status is 1.

Example:
    python infer_onnx.py detector.onnx image.png --out boxes.json
    python infer_onnx.py detector.onnx images/ --out boxes.csv --draw drawn/
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageOps

METADATA_KEY = 'mmdsym'
# Pillow's other decoders are not run, whatever a file is called.
FORMATS = ('BMP', 'JPEG', 'PNG', 'TIFF', 'WEBP')
SUFFIXES = ('.bmp', '.jpg', '.jpeg', '.png', '.tif', '.tiff', '.webp')
# Sheets of line-scan cameras are larger than what Pillow takes for an attack.
Image.MAX_IMAGE_PIXELS = 2**28
COLOURS = ('#e6194b', '#3cb44b', '#4363d8', '#f58231', '#911eb4', '#008080', '#9a6324', '#808000')


class Failure(Exception):
    """A fault of the user's files, in one sentence."""


class Detector:
    """An exported detector, from an upright image to boxes in its pixels.

    Args:
        path: An ONNX file of ``tools/export_detector.py``.
        threads: For one image; 0 for as many as ONNX Runtime likes.
        score: From which score boxes are reported; by default the file's own, per class.

    Raises:
        Failure: It is no such file.
    """

    def __init__(self, path: Path, threads: int = 0, score: float | None = None) -> None:
        if not path.is_file():
            raise Failure(f'there is no file {path}; name an exported .onnx file.')
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=['CPUExecutionProvider']
            )
        except Exception as error:  # onnxruntime has no common class for what it raises
            reason = first_line(error)
            raise Failure(f'{path} cannot be read as ONNX ({reason}); export it again.') from error
        text = self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        self.contract = json.loads(text) if text else {}
        if self.contract.get('version') != 1:
            raise Failure(f'{path} says nothing that this script knows; export it with mmdsym.')
        self.classes = self.contract['classes']
        wanted = self.contract['show_from_score'] if score is None else [score] * len(self.classes)
        self.thresholds = np.array(wanted, dtype=np.float32)
        # How the training's images were cut; older files say nothing.
        self.tiling = self.contract.get('tiling')

    def find(self, image: Image.Image) -> list[dict]:
        """Returns the boxes of an image, from tiles where the detector was trained on tiles.

        Args:
            image: RGB, upright.

        Raises:
            Failure: The file takes another size alone.
        """
        if self.tiling is None:
            return self.detect(image)
        boxes = []
        for window in windows(image.width, image.height, self.tiling):
            for box in self.detect(image.crop(window)):
                for key, shift in zip(('x1', 'y1', 'x2', 'y2'), window[:2] * 2, strict=True):
                    box[key] = round(box[key] + shift, 2)
                boxes.append(box)
        return merge(boxes, self.tiling['merge_threshold'])

    def detect(self, image: Image.Image) -> list[dict]:
        """Returns boxes as ``class``, ``score``, ``x1``, ``y1``, ``x2``, ``y2``, the best first.

        Args:
            image: RGB, upright.

        Raises:
            Failure: The file takes another size alone.
        """
        pixels = np.asarray(image)
        resized = resize_as_opencv(pixels, *self.size_for(image.width, image.height))
        # Per axis, since sizes are rounded.
        scale = np.array([resized.shape[1] / image.width, resized.shape[0] / image.height] * 2)
        batch = pad(resized, self.contract['resize']).transpose(2, 0, 1)[None]
        self.check_size(batch.shape[3], batch.shape[2])
        feed = {self.contract['input']['name']: np.ascontiguousarray(batch)}
        try:
            outputs = self.session.run(None, feed)
        except Exception as error:  # onnxruntime has no common class for what it raises
            raise Failure(f'the model cannot look at it ({first_line(error)})') from error
        boxes, scores, labels = (part[0] for part in outputs)
        boxes, scores, labels = self.select(boxes, scores, labels)
        boxes = (boxes / scale).clip(0, [image.width, image.height] * 2)
        return [
            {
                'class': self.classes[label],
                'score': round(float(score), 4),
                **dict(zip(('x1', 'y1', 'x2', 'y2'), np.round(box, 2).tolist(), strict=True)),
            }
            for box, score, label in zip(boxes, scores, labels, strict=True)
        ]

    def size_for(self, width: int, height: int) -> tuple[int, int]:
        """Returns the width and height to which an image is resized."""
        rule = self.contract['resize']
        bounds = rule['width'], rule['height']
        if not rule['keep_ratio']:
            return bounds
        factor = min(max(bounds) / max(width, height), min(bounds) / min(width, height))
        return max(1, int(width * factor + 0.5)), max(1, int(height * factor + 0.5))

    def check_size(self, width: int, height: int) -> None:
        """Raises a Failure if the graph takes another size alone."""
        fixed = self.session.get_inputs()[0].shape[:1:-1]
        if all(isinstance(side, int) for side in fixed) and list(fixed) != [width, height]:
            raise Failure(
                f'it becomes {width}x{height} pixels, but the model takes {fixed[0]}x{fixed[1]} '
                'alone; export it without --fixed-size.'
            )

    def select(
        self, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Suppresses where the graph did not, and drops what scores too little."""
        there = np.flatnonzero(scores > 0)
        boxes, scores, labels = boxes[there], scores[there], labels[there]
        rule = self.contract['suppression']
        if not rule['inside']:
            groups = np.zeros_like(labels) if rule['class_agnostic'] else labels
            kept = suppress(boxes, scores, groups, rule['iou_threshold'])[: rule['max_boxes']]
            boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        shown = scores >= self.thresholds[labels]
        return boxes[shown], scores[shown], labels[shown]


def first_line(error: Exception) -> str:
    """Returns what an error says, or what it is where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def windows(width: int, height: int, tiling: dict) -> list[tuple[int, int, int, int]]:
    """Places tiles over an image, row by row; the last ones are moved back into it.

    Args:
        width, height: Of the image in pixels.
        tiling: ``size`` of a tile in pixels, and ``overlap``, the share that neighbours share.
    """

    def starts(length: int) -> list[int]:
        size, step = tiling['size'], tiling['size'] - int(tiling['overlap'] * tiling['size'])
        count = 1 + max(0, -(-(length - size) // step))
        return [max(0, min(place * step, length - size)) for place in range(count)]

    size = tiling['size']
    return [
        (x, y, min(x + size, width), min(y + size, height))
        for y in starts(height)
        for x in starts(width)
    ]


def merge(boxes: list[dict], threshold: float) -> list[dict]:
    """Keeps the best of boxes of a class that share at least a part of the smaller one."""
    kept: list[dict] = []
    for box in sorted(boxes, key=lambda one: -one['score']):
        rivals = (other for other in kept if other['class'] == box['class'])
        if all(shared_part(box, other) < threshold for other in rivals):
            kept.append(box)
    return kept


def shared_part(a: dict, b: dict) -> float:
    """Returns the area that two boxes share, as a part of the smaller one."""
    width = min(a['x2'], b['x2']) - max(a['x1'], b['x1'])
    height = min(a['y2'], b['y2']) - max(a['y1'], b['y1'])
    smaller = min((box['x2'] - box['x1']) * (box['y2'] - box['y1']) for box in (a, b))
    return max(width, 0) * max(height, 0) / smaller if smaller > 0 else 0.0


def resize_as_opencv(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resizes as in the detector's training: OpenCV's bilinear rule, to the last bit.

    A grey level more or less moves boxes, so that OpenCV's whole numbers are kept to: weights of 11
    bits, 4 bits dropped between the axes, the rest rounded at the end.

    Args:
        pixels: (H, W, 3), uint8.
        width, height: New size.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    # At a border OpenCV takes one pixel across, but twice the same down.
    left, right, of_left, of_right = neighbours(pixels.shape[1], width, at_border=0)
    top, bottom, of_top, of_bottom = neighbours(pixels.shape[0], height, at_border=None)
    values = pixels.astype(np.int32)
    rows = (values[:, left] * of_left[:, None] + values[:, right] * of_right[:, None]) >> 4
    upper, lower = rows[top] * of_top[:, None, None], rows[bottom] * of_bottom[:, None, None]
    mixed = (upper >> 16) + (lower >> 16)
    return ((mixed + 2) >> 2).astype(np.uint8)


def neighbours(old: int, new: int, at_border: float | None) -> tuple[np.ndarray, ...]:
    """Returns for each new position the two old ones beside it, and their weights of 11 bits.

    Args:
        old, new: Numbers of pixels.
        at_border: Weight of the second where there is none; ``None`` leaves it as it comes.
    """
    place = ((np.arange(new) + 0.5) * (1.0 / (new / old)) - 0.5).astype(np.float32)
    first = np.floor(place).astype(int)
    weight = place - first.astype(np.float32)
    if at_border is not None:
        weight[(first < 0) | (first >= old - 1)] = at_border
    weights = [np.rint(part * np.float32(2048)).astype(np.int32) for part in (1 - weight, weight)]
    return first.clip(0, old - 1), (first + 1).clip(0, old - 1), *weights


def pad(pixels: np.ndarray, rule: dict) -> np.ndarray:
    """Fills up at the right and below, where the detector was trained so."""
    height, width = pixels.shape[:2]
    size = max(rule['pad_height'], height), max(rule['pad_width'], width)
    if size == (height, width):
        return pixels
    canvas = np.empty((*size, 3), dtype=np.uint8)
    canvas[:] = rule['pad_value']
    canvas[:height, :width] = pixels
    return canvas


def suppress(
    boxes: np.ndarray, scores: np.ndarray, groups: np.ndarray, iou_threshold: float
) -> np.ndarray:
    """Keeps the best of overlapping boxes (N, 4) of a group; returns indices, the best first."""
    order = np.argsort(-scores, kind='stable')
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        corner = np.maximum(boxes[best, :2], boxes[order, :2])
        shared = (np.minimum(boxes[best, 2:], boxes[order, 2:]) - corner).clip(0).prod(axis=1)
        union = areas[best] + areas[order] - shared
        overlaps = shared > iou_threshold * union
        order = order[~(overlaps & (groups[order] == groups[best]))]
    return np.array(kept, dtype=int)


def read_image(path: Path) -> tuple[Image.Image, str]:
    """Reads an image as the detector's training did: upright, 8 bits, three channels.

    Returns:
        The image in RGB, and what had to be done to it, in words, or nothing.

    Raises:
        Failure: It cannot be read.
    """
    try:
        with Image.open(path, formats=FORMATS) as opened:
            turned = opened.getexif().get(0x0112, 1) != 1
            image = ImageOps.exif_transpose(opened)
            mode = image.mode
            if mode.startswith('I;16') or (mode == 'I' and opened.format == 'PNG'):
                values = np.asarray(image).astype(np.uint16)
                image = Image.fromarray((values >> 8).astype(np.uint8))
            elif mode in ('I', 'F'):
                raise Failure('its pixels have 32 bits; save it with 8 or 16')
            notes = ['16 bits: the upper 8 count'] * mode.startswith('I')
            notes += ['transparency left out'] * (mode in ('RGBA', 'LA', 'PA'))
            notes += ['turned upright as its EXIF data say'] * turned
            return image.convert('RGB'), ', '.join(notes)
    except Failure:
        raise
    except Image.DecompressionBombError as error:
        limit = 2 * Image.MAX_IMAGE_PIXELS // 10**6
        raise Failure(f'it has more than {limit} megapixels; cut it into parts') from error
    # Pillow's plugins raise whatever a broken file makes them raise.
    except Exception as error:
        raise Failure(f'it cannot be read as an image ({type(error).__name__})') from error


def list_images(targets: list[Path], drawn: Path | None = None) -> list[Path]:
    """Lists files as they are named, and the images in folders, at any depth, sorted.

    Hidden files are no images, nor is what an earlier run has drawn.

    Args:
        targets: Files and folders.
        drawn: Folder of drawn images; it may lie among the others.

    Raises:
        Failure: A target does not exist or shall be drawn into, or there is no image at all.
    """
    found = []
    for target in targets:
        if drawn is not None and drawn.resolve() == target.resolve():
            raise Failure(f'--draw {drawn} is the folder of the images; name another.')
        if target.is_dir():
            inside = (p for p in target.rglob('*') if p.suffix.lower() in SUFFIXES)
            found += sorted(p for p in inside if is_input(p, target, drawn))
        elif target.is_file():
            found.append(target)
        else:
            raise Failure(f'{target} does not exist; name images or folders of images.')
    if not found:
        raise Failure(f'no image was found in {targets[0]} (looked for {", ".join(SUFFIXES)}).')
    return found


def is_input(path: Path, folder: Path, drawn: Path | None) -> bool:
    """Says whether an image in a folder was put there to be looked at."""
    hidden = any(part.startswith('.') for part in path.relative_to(folder).parts)
    return not hidden and (drawn is None or drawn.resolve() not in path.resolve().parents)


def draw(image: Image.Image, boxes: list[dict], classes: list[str]) -> Image.Image:
    """Draws boxes with class and score into a copy of an image."""
    picture = image.copy()
    canvas = ImageDraw.Draw(picture)
    # The best last, so that it lies on top.
    for box in reversed(boxes):
        colour = COLOURS[classes.index(box['class']) % len(COLOURS)]
        corners = [box[key] for key in ('x1', 'y1', 'x2', 'y2')]
        canvas.rectangle(corners, outline=colour, width=2)
        canvas.text((corners[0] + 3, corners[1] + 1), f'{box["class"]} {box["score"]:.2f}', colour)
    return picture


def write(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name and renames it.

    Raises:
        Failure: The folder or disk does not allow it.
    """
    draft = path.with_name(f'.{path.name}.unfinished')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        os.replace(draft, path)
    except OSError as error:
        raise Failure(f'{path} cannot be written ({error.strerror}); name another.') from error


def as_png(image: Image.Image) -> bytes:
    """Encodes an image."""
    stream = io.BytesIO()
    image.save(stream, format='PNG')
    return stream.getvalue()


def as_text(path: Path, detector: Detector, done: list[dict], skipped: list[dict]) -> str:
    """Formats the results as the suffix of the file says: json or csv."""
    if path.suffix.lower() == '.json':
        result = {'classes': detector.classes, 'images': done, 'skipped': skipped}
        return json.dumps(result, indent=1) + '\n'
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator='\n')
    names = ('class', 'score', 'x1', 'y1', 'x2', 'y2')
    writer.writerow(['file', *names])
    for entry in done:
        writer.writerows([entry['file'], *(box[n] for n in names)] for box in entry['boxes'])
    return stream.getvalue()


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('model', type=Path, help='.onnx file of tools/export_detector.py')
    parser.add_argument('images', type=Path, nargs='+', help='images, or folders of images')
    parser.add_argument('--out', type=Path, required=True, help='.json or .csv to write')
    parser.add_argument('--draw', type=Path, help='folder for images with their boxes')
    parser.add_argument('--score', type=float, help="lowest score; default: the model's own")
    parser.add_argument('--threads', type=int, default=0, help='threads; default: all')
    parser.add_argument('--tile', type=int, help='side of a tile; 0: none; default: as in training')
    parser.add_argument(
        '--overlap', type=float, help='share that tiles share; default: as in training'
    )
    parser.add_argument('--force', action='store_true', help='replace earlier results')
    return parser.parse_args()


def drawn_path(folder: Path, path: Path, number: int) -> Path:
    """Returns where an image with its boxes goes; the number keeps equal names apart."""
    return folder / f'{number:05d}_{path.stem}.png'


def check_arguments(arguments: argparse.Namespace, paths: list[Path]) -> None:
    """Refuses before any work what makes no sense, could not be written or would be replaced."""
    if arguments.out.suffix.lower() not in ('.json', '.csv'):
        raise Failure(f'{arguments.out} must end in .json or .csv.')
    if arguments.score is not None and not 0 <= arguments.score <= 1:
        raise Failure(f'--score {arguments.score} is none; give one in 0..1.')
    if arguments.threads < 0:
        raise Failure(f'--threads {arguments.threads} is no number of threads; give 0 or more.')
    targets = [arguments.out]
    if arguments.draw:
        targets += [drawn_path(arguments.draw, path, i) for i, path in enumerate(paths)]
    for target in targets:
        if target.exists() and not arguments.force:
            raise Failure(f'{target} exists; add --force to replace it, or name another.')
    for folder in (arguments.out.parent, *([arguments.draw] if arguments.draw else [])):
        check_folder(folder)


def check_folder(folder: Path) -> None:
    """Refuses a folder, which may be missing yet, that files cannot be written into."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise Failure(f'nothing can be written into {there}; name another folder.')


def choose_tiling(trained: dict | None, size: int | None, overlap: float | None) -> dict | None:
    """Returns the tiles that the command line asks for, else those of the training, if any.

    Raises:
        Failure: A number is out of its range.
    """
    if size == 0 or (size is None and trained is None):
        if overlap is not None:
            raise Failure('--overlap is for tiles; say their side with --tile.')
        return None
    chosen = dict(trained or {'overlap': 0.2, 'merge_threshold': 0.5})
    chosen |= {} if size is None else {'size': size}
    chosen |= {} if overlap is None else {'overlap': overlap}
    if chosen['size'] < 32 or not 0 <= chosen['overlap'] <= 0.9:
        raise Failure('--tile must be 0 or at least 32 pixels, and --overlap lie in 0..0.9.')
    return chosen


def run(arguments: argparse.Namespace) -> int:
    """Detects on all images; returns the exit status."""
    paths = list_images(arguments.images, arguments.draw)
    check_arguments(arguments, paths)
    detector = Detector(arguments.model, arguments.threads, arguments.score)
    detector.tiling = choose_tiling(detector.tiling, arguments.tile, arguments.overlap)
    done, skipped, seconds = [], [], 0.0
    for number, path in enumerate(paths):
        try:
            image, note = read_image(path)
            begin = time.perf_counter()
            boxes = detector.find(image)
            seconds += time.perf_counter() - begin
        except (Failure, MemoryError) as fault:
            reason = str(fault) or 'it does not fit into the memory'
            print(f'skipped {path}: {reason}', file=sys.stderr)
            skipped.append({'file': str(path), 'reason': reason})
            continue
        if note:
            print(f'{path}: {note}')
        size = {'width': image.width, 'height': image.height}
        done.append({'file': str(path), **size, 'boxes': boxes})
        if arguments.draw:
            picture = draw(image, boxes, detector.classes)
            write(drawn_path(arguments.draw, path, number), as_png(picture))
    # Names of files need not be text.
    content = as_text(arguments.out, detector, done, skipped).encode(errors='backslashreplace')
    write(arguments.out, content)
    count = sum(len(entry['boxes']) for entry in done)
    each = f', {1000 * seconds / len(done):.1f} ms each' if done else ''
    print(f'{arguments.out}: {count} boxes on {len(done)} images{each}; {len(skipped)} skipped')
    return 1 if skipped else 0


def main() -> None:
    """Runs, and tells the user's own faults in one line."""
    # Names of files need not be text.
    sys.stdout.reconfigure(errors='backslashreplace')
    try:
        raise SystemExit(run(parse_arguments()))
    except Failure as failure:
        print(f'error: {failure}', file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == '__main__':
    main()
