"""Writes what a benchmark has found so far: table, plot and raw numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmdsym.atomic_file import write_file, write_json

from .grid import labels_seen
from .plot import draw_label_efficiency
from .run_folder import RunFolder
from .table import as_csv, as_markdown, notes_on, summarise


def write_results(
    folders: Sequence[RunFolder], out: Path, left_out: str | None = None
) -> str | None:
    """Writes ``results.json``, ``table.md``, ``table.csv`` and ``label_efficiency.png``.

    Args:
        folders: All runs; those that are finished count.
        out: Folder to write into.
        left_out: A sentence about finished runs that are not among them.

    Returns:
        The table; ``None``, and nothing is written, while no run is finished.
    """
    results = [folder.result for folder in folders if folder.state == 'finished']
    if not results:
        return None
    rows = summarise(results)
    notes = [*labels_seen([folder.run for folder in folders]), *notes_on(results)]
    if len(results) < len(folders):
        notes.append(f'{len(results)} of {len(folders)} runs are finished.')
    if left_out:
        notes.append(left_out)
    table = as_markdown(rows) + ''.join(f'\n{note}\n' for note in notes)
    write_json(out / 'results.json', {'notes': notes, 'runs': results})
    write_file(out / 'table.md', table.encode())
    write_file(out / 'table.csv', as_csv(rows).encode())
    write_file(out / 'label_efficiency.png', draw_label_efficiency(rows))
    return table
