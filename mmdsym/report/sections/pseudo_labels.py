"""What became of pseudo-labels: counts, thresholds, and the CLIP filter."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes

from mmdsym.report.material import Material
from mmdsym.report.parts import Picture, Section, Table, absent
from mmdsym.report.style import MAIN, QUIET, SECOND, THIRD, mark_stages, small_multiples

_NO_TEACHER = 'The run trains a plain detector on labels alone, so it has no pseudo-labels.'
_FATES = {'kept': (THIRD, '-'), 'uncertain': (SECOND, '--'), 'dropped': (QUIET, ':')}
_FILTER_FATES = {
    'kept': (THIRD, '-'),
    'down_weighted': (SECOND, '--'),
    'dropped': (QUIET, ':'),
    'gated': (MAIN, '-.'),
}


def pseudo_label_section(material: Material) -> Section:
    """Draws kept, uncertain and dropped boxes of each class beside the labelled density."""
    if not material.run.is_pair:
        return absent(_NO_TEACHER)
    names = [f'pseudo_boxes/{fate}_{name}' for fate in _FATES for name in material.classes]
    if not any(material.log.of(name) for name in names):
        return absent(
            'The run logged no pseudo-labels: it did not reach a stage with unlabelled images, or '
            'mmdsym.PseudoLabelMonitorHook is not among its custom_hooks.',
        )
    density = labelled_density(material)
    kept = Picture(
        'pseudo_labels_kept',
        'Boxes taken for defects, per unlabelled image. They should be of the order of the '
        'labelled boxes per image (blue); far below, the class learns nothing from unlabelled '
        'images. Dotted lines are stage borders.',
        _draw_fates(material, ('kept',), density),
    )
    others = Picture(
        'pseudo_labels_not_kept',
        'Boxes in between, which are neither defect nor background, and boxes dropped, per '
        'unlabelled image.',
        _draw_fates(material, ('uncertain', 'dropped'), {}),
    )
    return Section(pictures=(kept, others))


def threshold_section(material: Material) -> Section:
    """Draws the calibrated thresholds of each class over time."""
    if not material.run.is_pair:
        return absent(_NO_TEACHER)
    log, classes = material.log, material.classes
    if not any(log.of(f'threshold/keep_{name}') for name in classes):
        return absent(
            'The run logged no calibrated threshold: it did not reach a stage with unlabelled '
            'images, or the thresholds were fixed by hand.',
        )
    sides = {'keep from': ('keep', THIRD, '-'), 'drop below': ('drop', QUIET, '--')}

    def draw(axes: Axes, label: int) -> None:
        for text, (side, colour, line) in sides.items():
            values = log.of(f'threshold/{side}_{classes[label]}')
            steps = list(values)
            heights = [min(value, 1.0) for value in values.values()]
            if steps:  # the last one stays in force
                steps.append(material.last_step)
                heights.append(heights[-1])
            style = dict(color=colour, linestyle=line, marker='.', label=text)
            axes.plot(steps, heights, drawstyle='steps-post', **style)
        axes.set_ylim(-0.02, 1.04)
        mark_stages(axes, material.stages, material.last_step, names=False)

    picture = Picture(
        'thresholds',
        'Score from which a box is kept, and score below which it is dropped; boxes in between are '
        'ignored. A keep threshold of 1 means that no score of the class reaches the target '
        'precision.',
        small_multiples(classes, draw, 'iteration', 'score'),
    )
    return Section(pictures=(picture,))


def clip_filter_section(material: Material) -> Section:
    """Draws what the CLIP filter did to the boxes of each class."""
    log, classes = material.log, material.classes
    if not material.run.is_pair or material.hook('CLIPPseudoLabelFilterHook') is None:
        return absent('The run had no CLIP filter (_base_/semi/clip_filter.py).')
    if not any(log.of(f'clip_filter/seen_{name}') for name in classes):
        return absent('The run had a CLIP filter, which logged no boxes (yet).')

    def draw(axes: Axes, label: int) -> None:
        for fate, (colour, line) in _FILTER_FATES.items():
            values = log.of(f'clip_filter/{fate}_{classes[label]}')
            if not values:
                continue
            style = dict(color=colour, linestyle=line, label=fate.replace('_', '-'))
            axes.plot(list(values), list(values.values()), **style)
        axes.set_ylim(bottom=0)
        mark_stages(axes, material.stages, material.last_step, names=False)

    picture = Picture(
        'clip_filter',
        'Boxes that the filter saw, per unlabelled image, and what became of them. Gated ones lay '
        'in images that the image gate closed.',
        small_multiples(classes, draw, 'iteration', 'boxes per image', share_y=False),
    )
    tables = (_score_table(material),)
    return Section(_filter_text(material), tables, (picture,))


def labelled_density(material: Material) -> dict[str, float]:
    """Returns the labelled boxes per image of each class; empty where the labels are not there."""
    training = material.config.get('train_dataloader') or {}
    sources = (training.get('dataset') or {}).get('sources') or {}
    dataset = sources.get('labelled') or {}
    path = Path(dataset.get('data_root') or '') / dataset.get('ann_file', '')
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        names = {category['id']: category['name'] for category in content['categories']}
        counts = Counter(names[box['category_id']] for box in content['annotations'])
        images = max(1, len(content['images']))
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {name: counts[name] / images for name in names.values()}


def _draw_fates(material: Material, fates: tuple[str, ...], density: Mapping[str, float]) -> bytes:
    classes = material.classes

    def draw(axes: Axes, label: int) -> None:
        for fate in fates:
            colour, line = _FATES[fate]
            values = material.log.of(f'pseudo_boxes/{fate}_{classes[label]}')
            style = dict(color=colour, linestyle=line, marker='.', label=fate)
            axes.plot(list(values), list(values.values()), **style)
        if classes[label] in density:
            style = dict(color=MAIN, linestyle='-.', linewidth=1.2, label='labelled')
            axes.axhline(density[classes[label]], **style)
        axes.set_ylim(bottom=0)
        mark_stages(axes, material.stages, material.last_step, names=False)

    return small_multiples(classes, draw, 'iteration', 'boxes per image', share_y=False)


def _filter_text(material: Material) -> tuple[str, ...]:
    text = []
    for name, words in (
        ('share_of_time', 'The filter took {:.1%} of the time of an iteration'),
        ('remembered_share', '{:.0%} of the embeddings were remembered ones'),
        ('closed_images', 'the image gate closed for {:.0%} of the images'),
    ):
        last = material.log.last(f'clip_filter/{name}')
        if last is not None:
            text.append(words.format(last[1]))
    return ('; '.join(text) + ', when it was last logged.',) if text else ()


def _score_table(material: Material) -> Table:
    rows = []
    for name in material.classes:
        values = [
            material.log.last(f'clip_filter/mean_{score}_{name}')
            for score in ('teacher', 'clip', 'fused')
        ]
        rows.append((name, *('–' if value is None else f'{value[1]:.2f}' for value in values)))
    caption = 'Mean scores when last logged; a dash where CLIP was asked about no box of the class'
    return Table(('class', 'teacher', 'CLIP', 'fused'), rows, caption)
