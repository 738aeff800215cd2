"""Tables and curves of pseudo-label quality."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mmdsym.atomic_file import as_json

from .pseudo_label_quality import ALL_CLASSES, PseudoLabelQuality, QualityRow

_CURVES = 3
_PANELS = 24


def write_report(
    quality: PseudoLabelQuality, out: Path, extra: Mapping[str, object] | None = None
) -> list[Path]:
    """Writes ``pseudo_labels.md``, ``.csv``, ``.json`` and ``.png``.

    Each file appears whole or not at all; earlier ones of the same name are replaced.

    Args:
        quality: From :func:`mmdsym.evaluation.measure_quality`.
        out: Folder; made if missing.
        extra: Further entries of the json.

    Returns:
        The files, the Markdown first.
    """
    out.mkdir(parents=True, exist_ok=True)
    content = dict(
        reference=quality.reference,
        reference_precision=quality.reference_precision,
        rows=[_rounded(row) for row in quality.rows],
        **(extra or {}),
    )
    texts = {
        'md': as_markdown(quality),
        'csv': as_csv(quality.rows),
        'json': as_json(content),
    }
    paths = []
    for suffix, text in texts.items():
        data = text.encode()
        paths.append(_write(out / f'pseudo_labels.{suffix}', lambda f, data=data: f.write(data)))
    return [*paths, _write(out / 'pseudo_labels.png', lambda file: draw_curves(quality, file))]


def as_markdown(quality: PseudoLabelQuality) -> str:
    """Returns the table in per cent, with a sentence on how to read it."""
    at = f'{100 * quality.reference_precision:g} %'
    columns = [
        'class',
        'score',
        'AP@0.5',
        f'recall at {at} precision',
        f'precision at the recall where {quality.reference} has {at}',
        'recall of all boxes',
    ]
    lines = [columns, ['---'] * len(columns)]
    for row in quality.rows:
        values = (
            row.average_precision,
            row.recall_at_precision,
            row.precision_at_reference,
            row.recall,
        )
        lines.append([row.class_name, row.score, *map(_per_cent, values)])
    table = '\n'.join(f'| {" | ".join(line)} |' for line in lines)
    return (
        f'{table}\n\nIn per cent. `{ALL_CLASSES}`: AP is the mean over the classes, the other '
        'values are of all boxes together.\n'
    )


def as_csv(rows: Sequence[QualityRow]) -> str:
    """Returns the table with all columns, numbers in [0, 1]; empty where undefined."""
    stream = io.StringIO()
    entries = [_rounded(row) for row in rows]
    writer = csv.DictWriter(stream, entries[0], lineterminator='\n')
    writer.writeheader()
    writer.writerows(entries)
    return stream.getvalue()


def draw_curves(quality: PseudoLabelQuality, file: object) -> None:
    """Draws precision over recall as PNG, a panel for all classes and one for each.

    Only the first scores are drawn: the curves of an ablation lie on each other. Of more classes
    than a sheet holds, those with most true boxes are drawn; the tables have all.

    Args:
        quality: What to draw.
        file: Binary file or path.
    """
    # Imported late, and used without pyplot: no window, no state shared with others.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    boxes = {
        row.class_name: row.true_boxes for row in quality.rows if row.class_name != ALL_CLASSES
    }
    most = sorted(boxes, key=boxes.__getitem__, reverse=True)[: _PANELS - 1]
    names = [ALL_CLASSES, *(name for name in boxes if name in most)]
    scores = list(dict.fromkeys(row.score for row in quality.rows))[:_CURVES]
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.3 * rows), layout='constrained')
    FigureCanvasAgg(figure)
    for position, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, position + 1)
        for score in scores:
            curve = quality.curves[score, name]
            average = quality.row(score, name).average_precision
            label = f'{score} (AP {_per_cent(average)})'
            axes.plot(curve.recall, curve.envelope, label=label, linewidth=1.4)
        axes.axhline(quality.reference_precision, color='grey', linewidth=0.6, linestyle=':')
        axes.set(title=name, xlim=(0, 1), ylim=(0, 1.02), xlabel='recall', ylabel='precision')
        axes.legend(fontsize=7, loc='lower left')
    figure.savefig(file, format='png', dpi=110)


def _per_cent(value: float) -> str:
    return '-' if np.isnan(value) else f'{100 * value:.1f}'


def _rounded(row: QualityRow) -> dict:
    """The row with four decimals; NaN becomes ``None``."""
    return {
        name: (None if np.isnan(value) else round(value, 4)) if isinstance(value, float) else value
        for name, value in asdict(row).items()
    }


def _write(path: Path, write: Callable[[object], object]) -> Path:
    draft = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        with open(draft, 'wb') as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return path
