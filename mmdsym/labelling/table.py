"""The ranking as a table."""

from __future__ import annotations

import csv
import io

from .reasons import PARTS
from .suggesting import Suggestions

COLUMNS = ('rank', 'file', 'score', *PARTS, 'novelty', 'boxes', 'reason')


def as_csv(suggestions: Suggestions) -> str:
    """Returns one line for each image; a part that was left out stays empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator='\n')
    writer.writerow(COLUMNS)
    for entry in suggestions.images:
        parts = [entry.doubts.get(name) for name in PARTS]
        writer.writerow(
            [
                entry.rank,
                entry.image.name,
                f'{entry.score:.4f}',
                *('' if value is None else f'{value:.4f}' for value in parts),
                f'{entry.novelty:.4f}',
                len(entry.boxes),
                entry.reason,
            ]
        )
    return stream.getvalue()
