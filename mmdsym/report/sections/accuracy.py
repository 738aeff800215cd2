"""Accuracy of each class: precision over recall, and who is taken for whom."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from mmdsym.report.material import Material
from mmdsym.report.parts import Picture, Section, Table, absent, per_cent
from mmdsym.report.quality import RECALLS
from mmdsym.report.style import (
    as_png,
    class_colour_code,
    new_figure,
    report_style,
    short_name,
    small_multiples,
)

_MOST_WRITTEN = 12
_MOST_CONFUSIONS = 10


def precision_recall_section(material: Material) -> Section:
    """Draws precision over recall, with a table of AP@0.5."""
    accuracy, classes = material.accuracy, material.classes
    if not accuracy.true_boxes.any():
        return absent('No validation image has a box, so there is no accuracy to measure.')

    def draw(axes: Axes, label: int) -> None:
        if accuracy.true_boxes[label]:
            curve, colour = accuracy.precision[:, label], class_colour_code(label)
            axes.plot(RECALLS, curve, color=colour)
            axes.fill_between(RECALLS, curve, color=colour, alpha=0.15)
            text = f'AP {per_cent(accuracy.ap50[label])} %'
        else:
            text = 'no true box'
        axes.text(0.03, 0.06, text, transform=axes.transAxes)
        axes.set(xlim=(0, 1), ylim=(0, 1.03))

    picture = Picture(
        'precision_recall',
        f'Precision over recall of the {material.networks[0]} at an overlap (IoU) of 0.5, the best '
        'precision at this recall or a higher one, as COCO counts it.',
        small_multiples(classes, draw, 'recall', 'precision'),
    )
    return Section(tables=(_table(material),), pictures=(picture,))


def _table(material: Material) -> Table:
    accuracy = material.accuracy
    rows = [
        (name, per_cent(ap), str(count), *_counts(material, label))
        for label, (name, ap, count) in enumerate(
            zip(material.classes, accuracy.ap50, accuracy.true_boxes, strict=True)
        )
    ]
    total = accuracy.true_boxes.sum()
    rows.append(('mean, or all', per_cent(accuracy.map50), str(total), *_counts(material, None)))
    return Table(
        ('class', 'AP@0.5 (%)', 'true boxes', 'found from score', 'precision (%)', 'recall (%)'),
        rows,
        'Precision and recall are those of boxes from the score given, each paired with one true '
        f'box as in the table of confusions; mAP@0.5:0.95 is {per_cent(accuracy.map)} %.',
    )


def _counts(material: Material, label: int | None) -> tuple[str, str, str]:
    """Score, precision and recall of a class, or of all."""
    agreement = material.matches.agreement(label)
    score = '' if label is None else f'{material.thresholds[label]:.2f}'
    return score, per_cent(agreement.precision), per_cent(agreement.recall)


def confusion_section(material: Material) -> Section:
    """Draws true classes against predicted ones, background among them."""
    matches, classes = material.matches, material.classes
    if not matches.confusion.any():
        return absent('No validation image has a box, and nothing was detected.')
    low, high = min(material.thresholds), max(material.thresholds)
    scores = f'{low:.2f}' if high - low < 0.005 else f'{low:.2f} to {high:.2f} (by class)'
    picture = Picture(
        'confusion',
        f'Detections of score {scores} or more, paired with the true box that they overlap by 0.5 '
        '(IoU) or more, whatever the class, the best score first. Each row is a true class, shaded '
        'by its share; "nothing" is background: missed boxes on the right, false alarms below.',
        _draw_confusion(matches.confusion, classes),
    )
    return Section(tables=(_confusions(matches.confusion, classes),), pictures=(picture,))


def _confusions(confusion: np.ndarray, classes: tuple[str, ...]) -> Table:
    names = [*classes, 'nothing']
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind='stable')[:_MOST_CONFUSIONS]
    rows = [
        (names[true], names[found], str(wrong[true, found]))
        for true, found in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[true, found]
    ]
    return Table(('true', 'taken for', 'boxes'), rows, 'The most frequent errors')


def _draw_confusion(confusion: np.ndarray, classes: tuple[str, ...]) -> bytes:
    names = [*(short_name(name) for name in classes), 'nothing']
    count = len(names)
    shares = confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
    written = len(classes) <= _MOST_WRITTEN
    side = min(10.4, 3.2 + (0.62 if written else 0.16) * count)
    with report_style():
        figure = new_figure(0.82 * side, side)
        axes = figure.subplots()
        image = axes.imshow(100 * shares, cmap='Blues', vmin=0, vmax=100)
        size = 9.5 if written else 7
        slant = dict(rotation=45, ha='right') if written else dict(rotation=90)
        axes.set_xticks(range(count), names, size=size, **slant)
        axes.set_yticks(range(count), names, size=size)
        axes.set(xlabel='predicted', ylabel='true')
        axes.grid(False)
        if written:
            for row, column in np.ndindex(confusion.shape):
                colour = 'white' if shares[row, column] > 0.5 else 'black'
                text = str(confusion[row, column] or '')
                axes.text(column, row, text, ha='center', va='center', color=colour, size=9)
        figure.colorbar(image, ax=axes, shrink=0.8, label='share of the row (%)')
        return as_png(figure)
