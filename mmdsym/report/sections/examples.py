"""Detections beside ground truth, on the images that went best and worst."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from mmdsym.errors import UserError
from mmdsym.image_files import read_rgb
from mmdsym.report.material import Material
from mmdsym.report.parts import Picture, Section, absent
from mmdsym.report.style import class_colour
from mmdsym.visualization import Box, compose_sheet, draw_panel

_MOST = 4
_COLUMNS = 2


def example_section(material: Material) -> Section:
    """Draws the images with the highest and those with the lowest F1."""
    best, worst = best_and_worst(material)
    if not best:
        return absent('There is no validation image.')
    text = (
        'Left of each pair is the ground truth, right what was detected. Images are ranked by F1, '
        'the harmonic mean of precision and recall over the boxes of the image, from the scores '
        'in the table above on and at an overlap (IoU) of 0.5. Of images with the same F1 those '
        'with more true boxes are shown as best, those with more errors as worst.'
    )
    pictures = [_picture(material, 'best', best)]
    if worst:
        pictures.append(_picture(material, 'worst', worst))
    return Section((text,), pictures=pictures)


def best_and_worst(material: Material) -> tuple[list[int], list[int]]:
    """Returns image ids, the best first and the worst first; no image is in both."""
    matches = material.matches
    images = sorted(matches.right)

    def true_boxes(image: int) -> int:
        return matches.right[image] + matches.missed[image]

    def errors(image: int) -> int:
        return matches.false[image] + matches.missed[image]

    best = sorted(images, key=lambda image: (-matches.f1(image), -true_boxes(image)))
    best = best[: min(_MOST, (len(images) + 1) // 2)]
    worst = sorted(set(images) - set(best), key=lambda image: (matches.f1(image), -errors(image)))
    return best, worst[:_MOST]


def _picture(material: Material, name: str, images: Sequence[int]) -> Picture:
    entries = [_panels(material, image) for image in images]
    values = [material.matches.f1(image) for image in images]
    low, high = f'{min(values):.2f}', f'{max(values):.2f}'
    title = f'{name}: F1 {low}' if low == high else f'{name}: F1 {low} to {high}'
    sheet = compose_sheet(entries, title, columns=_COLUMNS)
    return Picture.of_photographs(f'detections_{name}', f'The {name} images.', sheet)


def _panels(material: Material, image: int) -> list[Image.Image]:
    path = material.data.paths[image]
    try:
        pixels = read_rgb(path)
    except (OSError, ValueError) as error:
        raise UserError(f"the image '{path}' cannot be read; repair or remove it.") from error
    true, found = _true_boxes(material, image), _found_boxes(material, image)
    captions = (
        f'{path.name}: {len(true)} true',
        f'{len(found)} detected, F1 {material.matches.f1(image):.2f}',
    )
    return [draw_panel(pixels, true, captions[0]), draw_panel(pixels, found, captions[1])]


def _true_boxes(material: Material, image: int) -> list[Box]:
    truth = material.data.truth
    return [
        _box(material, annotation, '')
        for annotation in truth.load_anns(truth.get_ann_ids([image]))
        if not annotation.get('iscrowd')
    ]


def _found_boxes(material: Material, image: int) -> list[Box]:
    labels = {category: label for label, category in enumerate(material.data.category_ids)}
    found = [
        result
        for result in material.results
        if result['image_id'] == image
        and result['score'] >= material.thresholds[labels[result['category_id']]]
    ]
    # The best last, so that it lies on top.
    found.sort(key=lambda result: result['score'])
    return [_box(material, result, f' {result["score"]:.2f}') for result in found]


def _box(material: Material, entry: dict, text: str) -> Box:
    label = material.data.category_ids.index(entry['category_id'])
    x, y, width, height = entry['bbox']
    name = f'{material.classes[label]}{text}'
    return Box((x, y, x + width, y + height), name, class_colour(label))
