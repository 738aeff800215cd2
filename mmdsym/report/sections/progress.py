"""Accuracy and losses over the iterations."""

from __future__ import annotations

import re
from collections.abc import Mapping

from matplotlib.axes import Axes

from mmdsym.report.material import Material
from mmdsym.report.parts import Picture, Section, absent
from mmdsym.report.style import (
    MAIN,
    QUIET,
    SECOND,
    THIRD,
    as_png,
    mark_stages,
    new_figure,
    report_style,
    short_name,
)

_BRANCHES = {'sup': 'labelled', 'synthetic': 'synthetic', 'unsup': 'unlabelled'}
_BRANCH_COLOURS = {'labelled': MAIN, 'synthetic': THIRD, 'unlabelled': SECOND, '': MAIN}
_BRANCH_OF_LOSS = re.compile(rf'(?:({"|".join(_BRANCHES)})_)?(.+)')


def accuracy_over_time(material: Material) -> Section:
    """Draws the mAP@0.5 of each network, with stage borders and the supervised reference."""
    series = {
        network: material.log.of(material.logged_name(network, 'bbox_mAP_50'))
        for network in material.networks
    }
    series = {network: values for network, values in series.items() if values}
    if not series:
        return absent('The run was not validated while it trained, so there is no curve.')
    caption = 'mAP@0.5 on the validation images after each validation'
    if material.run.is_pair:
        caption += '; while a stage has no unlabelled images, the teacher is the student’s copy'
    picture = Picture('accuracy', f'{caption}.', _draw_accuracy(material, series))
    return Section(pictures=(picture,))


def _draw_accuracy(material: Material, series: Mapping[str, Mapping[int, float]]) -> bytes:
    with report_style():
        figure = new_figure(3.6)
        axes = figure.subplots()
        styles = {'student': (SECOND, 's', '--')}
        for network, values in series.items():
            colour, marker, line = styles.get(network, (MAIN, 'o', '-'))
            percent = [100 * value for value in values.values()]
            axes.plot(
                list(values), percent, color=colour, marker=marker, linestyle=line, label=network
            )
        if material.reference is not None:
            axes.axhline(
                100 * material.reference.map50,
                color=QUIET,
                linestyle=':',
                label=f'supervised: {short_name(material.reference.name, 40)}',
            )
        mark_stages(axes, material.stages, material.last_step)
        axes.set(xlabel='iteration', ylabel='mAP@0.5 (%)')
        figure.legend(loc='outside right upper')
        return as_png(figure)


def losses_over_time(material: Material) -> Section:
    """Draws the loss of each branch, and what each is made of."""
    branches = losses_by_branch(material.log.series)
    if not branches:
        return absent('The run logged no loss.')
    window = (material.config.get('log_processor') or {}).get('window_size', 10)
    caption = (
        'Losses as the optimiser saw them, weights of the stage included; each point is a mean '
        f'over up to {window} iterations.'
    )
    return Section(pictures=(Picture('losses', caption, _draw_losses(material, branches)),))


def losses_by_branch(
    series: Mapping[str, Mapping[int, float]],
) -> dict[str, dict[str, dict[int, float]]]:
    """Sorts the losses of a log.

    Args:
        series: Name of a scalar to its values by iteration.

    Returns:
        Branch (``labelled``, ``synthetic``, ``unlabelled``; empty for a plain detector) to its
        parts, each by iteration. The layers of a decoder count as one part.
    """
    branches: dict[str, dict[str, dict[int, float]]] = {}
    for name, values in series.items():
        if 'loss' not in name or name == 'loss' or '/' in name:
            continue
        branch, part = _BRANCH_OF_LOSS.fullmatch(name).groups()
        parts = branches.setdefault(_BRANCHES.get(branch, ''), {})
        total = parts.setdefault(re.sub(r'^(?:d\d+\.|enc_)+', '', part), {})
        for step, value in values.items():
            total[step] = total.get(step, 0.0) + value
    order = [*_BRANCHES.values(), '']
    return {branch: branches[branch] for branch in order if branch in branches}


def _draw_losses(
    material: Material, branches: Mapping[str, Mapping[str, Mapping[int, float]]]
) -> bytes:
    with report_style():
        figure = new_figure(3.0 + 2.3 * len(branches))
        plots = figure.subplots(1 + len(branches), sharex=True)
        _draw_totals(plots[0], branches)
        for axes, (branch, parts) in zip(plots[1:], branches.items(), strict=True):
            for index, (part, values) in enumerate(sorted(parts.items())):
                line = ('-', '--', ':', '-.')[index % 4]
                axes.plot(list(values), list(values.values()), linestyle=line, label=part)
            axes.set_ylabel(f'{branch or "parts of the"} loss')
        for index, axes in enumerate(plots):
            axes.set_ylim(bottom=0)
            mark_stages(axes, material.stages, material.last_step, names=index == 0)
            axes.legend(loc='center left', bbox_to_anchor=(1.005, 0.5), fontsize=9)
        plots[-1].set_xlabel('iteration')
        return as_png(figure)


def _draw_totals(axes: Axes, branches: Mapping[str, Mapping[str, Mapping[int, float]]]) -> None:
    for branch, parts in branches.items():
        total: dict[int, float] = {}
        for values in parts.values():
            for step, value in values.items():
                total[step] = total.get(step, 0.0) + value
        steps = sorted(total)
        colour = _BRANCH_COLOURS[branch]
        heights = [total[step] for step in steps]
        axes.plot(steps, heights, color=colour, label=branch or 'total', marker='.')
    axes.set_ylabel('loss, all parts')
