"""The label-efficiency plot: how good each method is with how many labels."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .table import Row


def draw_label_efficiency(rows: Sequence[Row]) -> bytes:
    """Draws mAP@0.5 against the label fraction, a line for each method.

    Bars show the standard deviation over seeds, where there are several.

    Args:
        rows: At least one.

    Returns:
        A PNG file.
    """
    figure = Figure(figsize=(7, 4.5), dpi=120)
    axes = figure.add_subplot()
    for name in dict.fromkeys(row.method for row in rows):
        points = sorted((row for row in rows if row.method == name), key=lambda row: row.fraction)
        axes.errorbar(
            [100 * row.fraction for row in points],
            [100 * row.overall.mean for row in points],
            yerr=[100 * (row.overall.deviation or 0.0) for row in points],
            marker='o',
            capsize=3,
            label=name,
        )
    axes.set_xlabel('labelled training images (%)')
    axes.set_ylabel('mAP@0.5 (%)')
    axes.set_xlim(0, 105)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream)
    return stream.getvalue()
