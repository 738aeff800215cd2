"""How plots look: colours that colour-blind readers tell apart, sizes, marks of stages."""

from __future__ import annotations

import io
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

from mmdsym.stages import Stage

# Okabe and Ito's, without green, which is for ground truth, and what is too pale for white paper.
_CLASS_COLOURS = ('#E69F00', '#56B4E9', '#D55E00', '#CC79A7', '#4E8FD0', '#999933', '#A0A0A0')
MAIN, SECOND, THIRD, QUIET = '#0072B2', '#D55E00', '#009E73', '#777777'
"""Colours of what is no class, such as teacher and student."""

WIDTH = 10.4
"""Of a plot, in inches."""

_DPI = 110
_LONGEST_NAME = 26
# For class names in other scripts, where such a font is installed.
_FURTHER_FONTS = ('Noto Sans CJK JP', 'Noto Sans CJK SC', 'WenQuanYi Zen Hei', 'Noto Sans')
_RC = {
    'font.size': 9.5,
    'axes.titlesize': 10,
    'axes.grid': True,
    'axes.axisbelow': True,
    'axes.prop_cycle': cycler(color=[MAIN, SECOND, THIRD, '#CC79A7', '#56B4E9', '#E69F00']),
    'axes.spines.right': False,
    'axes.spines.top': False,
    'grid.color': '#DDDDDD',
    'grid.linewidth': 0.6,
    'legend.frameon': False,
    'lines.linewidth': 1.7,
    'lines.markersize': 4,
    # A class may be called $x$.
    'text.parse_math': False,
}


def class_colour(label: int) -> tuple[int, int, int]:
    """Returns the colour of a class (red, green, blue), each 0..255, the same in every picture."""
    code = _CLASS_COLOURS[label % len(_CLASS_COLOURS)]
    return tuple(int(code[start : start + 2], 16) for start in (1, 3, 5))


def class_colour_code(label: int) -> str:
    """Returns the same colour as plots want it, such as ``'#E69F00'``."""
    return _CLASS_COLOURS[label % len(_CLASS_COLOURS)]


def short_name(name: str, longest: int = _LONGEST_NAME) -> str:
    """Returns a name that fits into a plot: one line, without control characters, cut if long."""
    visible = ''.join(c if unicodedata.category(c)[0] != 'C' else ' ' for c in name)
    line = ' '.join(visible.split()) or '(no name)'
    return line if len(line) <= longest else line[: longest - 1] + '…'


@contextmanager
def report_style() -> Iterator[None]:
    """Sets sizes and fonts for whatever is drawn and saved inside."""
    installed = set(font_manager.get_font_names())
    fonts = ['DejaVu Sans', *(font for font in _FURTHER_FONTS if font in installed)]
    with rc_context(_RC | {'font.family': fonts}):
        yield


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Returns an empty figure that lays itself out, in inches, without a window."""
    figure = Figure(figsize=(width, height), layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def as_png(figure: Figure) -> bytes:
    """Returns a figure as a file that depends on nothing but its content."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # Where no font has a letter, an empty box stands for it; tables have the name as it is.
        warnings.filterwarnings('ignore', message='Glyph .* missing')
        figure.savefig(stream, format='png', dpi=_DPI, metadata={'Software': None})
    return stream.getvalue()


def mark_stages(axes: Axes, stages: Sequence[Stage], last_step: int, names: bool = True) -> None:
    """Draws where each stage begins, with its name above the plot.

    Args:
        axes: Iterations from left to right.
        stages: In order; may be empty.
        last_step: Where the plot ends.
        names: Whether to write the names.
    """
    begun = [stage for stage in stages if stage.begin < last_step]
    # A little more, so that the last marker is whole.
    axes.set_xlim(0, 1.015 * max(1, last_step))
    crowded = any(
        min(stage.end, last_step) - stage.begin < 0.012 * len(stage.name) * last_step
        for stage in begun
    )
    for stage in begun:
        if stage.begin:
            axes.axvline(stage.begin, color='#999999', linewidth=1.1, linestyle=':')
        if names:
            axes.annotate(
                f'{short_name(stage.name)}',
                (stage.begin, 1),
                xycoords=('data', 'axes fraction'),
                xytext=(3, 3),
                textcoords='offset points',
                rotation=25 if crowded else 0,
                color='#444444',
                fontsize=9,
            )


def small_multiples(
    classes: Sequence[str],
    draw: Callable[[Axes, int], None],
    x_label: str,
    y_label: str,
    share_y: bool = True,
) -> bytes:
    """Draws one small plot for each class, with one legend for all.

    Args:
        classes: Class names; their colours mark the plots.
        draw: Draws a class, given by its label, into its plot.
        x_label: With unit.
        y_label: With unit.
        share_y: Whether all plots have the same vertical scale.

    Returns:
        A PNG.
    """
    with report_style():
        columns = min(len(classes), 3 if len(classes) <= 12 else 5)
        rows = -(-len(classes) // columns)
        height = 3.6 if rows == 1 else 0.7 + rows * (2.2 if columns <= 3 else 1.6)
        figure = new_figure(height, WIDTH if columns > 1 else 0.7 * WIDTH)
        grid = figure.subplots(rows, columns, sharex=True, sharey=share_y, squeeze=False)
        for label, axes in enumerate(grid.flat):
            if label >= len(classes):
                axes.set_visible(False)
                continue
            draw(axes, label)
            longest = _LONGEST_NAME if columns <= 3 else 18
            axes.set_title(short_name(classes[label], longest), loc='left')
            axes.spines['left'].set(color=class_colour_code(label), linewidth=4)
            if label + columns >= len(classes):
                axes.tick_params(labelbottom=True)
        figure.supxlabel(x_label, fontsize=10)
        figure.supylabel(y_label, fontsize=10)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        if len(labels) > 1:
            figure.legend(handles, labels, loc='outside upper center', ncols=len(labels))
        return as_png(figure)
