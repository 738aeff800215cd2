"""A folder with everything that an annotator needs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from mmdsym.datasets.preparation.leavings import scratch_folder
from mmdsym.datasets.preparation.merging import proposals
from mmdsym.datasets.preparation.records import Box
from mmdsym.errors import UserError
from mmdsym.output_place import require_writable

from .contact_sheet import as_png
from .cvat import as_coco
from .label_studio import LINK, as_labelling_config, as_tasks
from .suggesting import Suggestions
from .table import as_csv
from .yolo import as_yolo

OWN_ENTRIES = (
    'suggestions.csv',
    'suggestions.png',
    'label_studio.json',
    'label_studio_config.xml',
    'coco.json',
    proposals.FILE_NAME,
    'yolo',
    'images',
)


def refuse_to_overwrite(out: Path, force: bool) -> None:
    """Refuses a folder that holds earlier suggestions, or files of somebody else.

    Raises:
        UserError: It holds suggestions that may not be replaced, or what looks like them and never
            may, or it is a file.
    """
    require_writable(out)
    present = [name for name in OWN_ENTRIES if (out / name).exists()]
    if present and proposals.FILE_NAME not in present:
        # A data set has a folder 'images', too.
        raise UserError(
            f'{out} holds {", ".join(present)}, which no suggestions have left there (there is no '
            f'{proposals.FILE_NAME}): choose another --out.'
        )
    if present and not force:
        raise UserError(
            f'{out} holds {", ".join(present)} already: add --force to replace them, or choose '
            'another --out.'
        )


def write_suggestions(
    suggestions: Suggestions, out: Path, link: str = LINK, force: bool = False
) -> None:
    """Writes table, contact sheet, images and pre-labels.

    All is made in a hidden folder first. Other files in the folder stay as they are.

    Args:
        suggestions: At least one image.
        out: The folder; made where it is missing.
        link: See :func:`mmdsym.labelling.label_studio.as_tasks`.
        force: Whether to replace earlier suggestions.

    Raises:
        UserError: Earlier suggestions are there and may not be replaced, or there is no image.
    """
    refuse_to_overwrite(out, force)
    if not suggestions.images:
        raise UserError(
            'there is nothing to suggest: every image is a copy of a labelled one; name a list of '
            'other images.'
        )
    out.mkdir(parents=True, exist_ok=True)
    with scratch_folder(out, '.unfinished') as draft:
        for name, content in _files(suggestions, link).items():
            path = draft / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        for entry in suggestions.images:
            copy = draft / 'images' / entry.image.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(entry.image.path, copy)
        for name in OWN_ENTRIES:
            _replace(draft / name, out / name)


def _files(suggestions: Suggestions, link: str) -> dict[str, str | bytes]:
    files: dict[str, str | bytes] = {
        'suggestions.csv': as_csv(suggestions),
        'suggestions.png': as_png(suggestions),
        'label_studio.json': _json(as_tasks(suggestions, link)),
        'label_studio_config.xml': as_labelling_config(suggestions.classes),
        'coco.json': _json(as_coco(suggestions)),
        proposals.FILE_NAME: _json(_record(suggestions)),
    }
    return files | {f'yolo/{name}': text for name, text in as_yolo(suggestions).items()}


def _record(suggestions: Suggestions) -> dict:
    """What was proposed, to be compared with what comes back."""
    return proposals.as_record(
        suggestions.model,
        {
            entry.image.name: [
                Box(*corners, label=suggestions.classes[label])
                for corners, label in zip(
                    entry.boxes.bboxes.tolist(), entry.boxes.labels.tolist(), strict=True
                )
            ]
            for entry in suggestions.images
        },
    )


def _json(content: object) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + '\n'


def _replace(draft: Path, target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    os.replace(draft, target)
