"""What a detector proposed, so that labels that nobody looked at are told from corrected ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdsym.datasets.preparation.merging.comparing import same_boxes
from mmdsym.datasets.preparation.merging.corrections import Corrections
from mmdsym.datasets.preparation.merging.finding import ImageFinder
from mmdsym.datasets.preparation.records import Box
from mmdsym.datasets.preparation.sources.files import list_files
from mmdsym.errors import UserError

FILE_NAME = 'proposals.json'
ACCEPTED = 'accepted'
"""Origin of labels that a person took over as they were proposed."""

UNTOUCHED = ('leave', 'accept')
"""What becomes of images that came back as proposed, without a sign that anybody saw them."""

Proposals = Mapping[str, Sequence[Box]]
"""Name of an image to the boxes that were proposed for it."""


def as_record(model: str, proposals: Proposals) -> dict[str, Any]:
    """Returns what `read_proposals` reads: the boxes of each image, and a hash of them all."""
    rows = {
        name: [[box.label, *(round(v, 2) for v in (box.x1, box.y1, box.x2, box.y2))] for box in own]
        for name, own in proposals.items()
    }
    return {'model': model, 'sha256': _hash(rows), 'proposals': rows}


def find_proposals(export: Path, given: Path | None, named: Path) -> Path | None:
    """Finds the record: in the folder that was named, else in or beside the export.

    Args:
        export: A json, or a folder with an export.
        given: The folder of suggestions, where the user named one.
        named: What the user named as export: the same, or the zip that it was unpacked from.

    Raises:
        UserError: The named folder has none.
    """
    if given is not None:
        path = given / FILE_NAME if given.is_dir() else given
        if not path.is_file():
            raise UserError(
                f'--suggested {given} holds no {FILE_NAME}; name the folder that '
                'tools/suggest_labels.py wrote'
            )
        return path
    return next((path for path in _places(export, named) if path.is_file()), None)


def _places(export: Path, named: Path) -> list[Path]:
    """Where a record may lie, the likeliest first."""
    folder = named.absolute().parent
    if export.is_dir():
        # Programs that pack a folder put it into the zip as the only entry.
        inside = [path for path in list_files(export, {'.json'}) if path.name == FILE_NAME]
        return sorted(inside, key=lambda path: len(path.parts)) + [folder / FILE_NAME]
    # CVAT's zip holds annotations/instances_default.json.
    return [folder / FILE_NAME, folder.parent / FILE_NAME]


def missing_record(corrections: Corrections, named: Path) -> list[str]:
    """Warns that nothing tells proposals from corrected labels.

    Args:
        corrections: The export.
        named: What the user named as such.

    Returns:
        A sentence, unless people are known to have submitted every label.
    """
    if not set(corrections.boxes) - corrections.submitted:
        return []
    return [
        f'No {FILE_NAME} was found in or beside {named.name}, so every image in it counts as '
        'corrected. If it began with suggested labels, those that nobody looked at count too: '
        'merge again, with the folder of the suggestions as --suggested.'
    ]


def read_proposals(path: Path, finder: ImageFinder) -> dict[str, list[Box]]:
    """Reads what was proposed for images of a data set; those of other data sets are passed over.

    Raises:
        UserError: The file is damaged or was changed, or speaks of other images alone.
    """
    try:
        content = json.loads(path.read_bytes())
        rows = content['proposals']
        whole = content['sha256'] == _hash(rows)
        boxes = {
            name: [Box(*map(float, edges), label=label) for label, *edges in own]
            for name, own in rows.items()
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f'{path} is no record of proposals ({type(error).__name__}); name the folder that '
            'tools/suggest_labels.py wrote with --suggested'
        ) from error
    if not whole:
        raise UserError(
            f'{path} was changed since it was written, so that nobody knows what was proposed; '
            'restore it'
        )
    found = {}
    for name, own in boxes.items():
        try:
            found[finder.find(name).name] = own
        except LookupError:
            continue
    if boxes and not found:
        raise UserError(
            f'{path} speaks of no image of this data set; name the right folder with --suggested'
        )
    return found


def settle_untouched(
    corrections: Corrections, proposals: Proposals, untouched: str
) -> tuple[dict[str, str], list[str]]:
    """Decides about images whose labels came back as they were proposed.

    What a person submitted is accepted. Of the rest nobody knows whether anybody looked.

    Args:
        corrections: The export; images that are left alone are taken out.
        proposals: What was proposed.
        untouched: `'leave'` or `'accept'`.

    Returns:
        Name of an image to the origin of its labels, where it is not that of the others; and
        sentences for the data card.

    Raises:
        UserError: Nothing else came back.
    """
    same = [
        name
        for name, boxes in sorted(corrections.boxes.items())
        if name in proposals and same_boxes(proposals[name], boxes)
    ]
    unseen = [name for name in same if name not in corrections.submitted]
    origins = {name: ACCEPTED for name in same}
    if not unseen:
        return origins, []
    told = f'{len(unseen)} images came back as proposed, such as {unseen[0]}'
    if untouched == 'accept':
        return origins, [f'{told}; their labels were accepted (--untouched accept).']
    if len(unseen) == len(corrections.boxes):
        raise UserError(
            f'all {told}: nobody is known to have looked at them; correct them first, or take them '
            'as they are with --untouched accept'
        )
    for name in unseen:
        del corrections.boxes[name]
        del origins[name]
    return origins, [f'{told}; nobody is known to have looked at them, so they were left alone.']


def _hash(rows: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
