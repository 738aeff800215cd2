"""Reading a source whatever its layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmdsym.datasets.preparation.records import Source
from mmdsym.datasets.preparation.sources import coco, labelme, neu, voc, yolo
from mmdsym.datasets.preparation.sources.files import list_files, list_images
from mmdsym.errors import UserError

LAYOUTS = {
    'neu': (neu.is_original_layout, 'IMAGES/ and ANNOTATIONS/ with NEU-DET file names'),
    'neu-split': (neu.is_split_layout, 'train/ and validation/ with images/ and annotations/'),
    'coco': (coco.is_coco, 'a json with images, annotations and categories'),
    'labelme': (labelme.is_labelme, 'images and jsons with labelme shapes'),
    'voc': (voc.is_voc, 'XML files and images'),
    'yolo': (yolo.is_yolo, 'label text files and images'),
}
"""Name of each layout to the test for it and what it needs, in the order of recognition."""


def read_source(root: Path, layout: str = 'auto', classes: Sequence[str] | None = None) -> Source:
    """Reads a folder.

    Args:
        root: The folder; one that holds nothing but another folder stands for that.
        layout: A key of `LAYOUTS`, or `'auto'` to recognise it.
        classes: Class names; they fix the order, and any other name becomes a problem.

    Raises:
        UserError: When the layout is not that of the folder or none is recognised.
    """
    if classes and len(set(classes)) < len(classes):
        raise UserError('--classes names a class twice; give each once')
    root = _descend(root)
    layout = recognise(root) if layout == 'auto' else layout
    fits, needs = LAYOUTS[layout]
    if not fits(root):
        raise UserError(f'{root} is not of layout {layout}, which needs {needs}')
    if layout == 'yolo':
        source = yolo.read_yolo(root, classes)
    elif layout == 'coco':
        source = coco.read_coco(root)
    elif layout == 'labelme':
        source = labelme.read_labelme(root)
    else:
        source = voc.read_voc(root, layout)
    neu.adopt(source)
    if classes:
        source.classes = list(classes)
    return source


def recognise(root: Path) -> str:
    """The name of the folder's layout.

    Raises:
        UserError: When none fits; the message says what was found and what is understood.
    """
    for layout, (fits, _) in LAYOUTS.items():
        if fits(root):
            return layout
    found = ', '.join(
        f'{len(list_files(root, {suffix}))} {suffix[1:]}' for suffix in ('.xml', '.txt', '.json')
    )
    raise UserError(
        f'{root} has no layout that is understood ({len(list_images(root))} images, {found} '
        'files); bring it into one of: '
        + '; '.join(f'{layout}: {needs}' for layout, (_, needs) in LAYOUTS.items())
    )


def _descend(root: Path) -> Path:
    """Leaves out folders that only wrap another one, as zips often have them."""
    while True:
        entries = [p for p in root.iterdir() if not p.name.startswith(('.', '__MACOSX'))]
        if len(entries) != 1 or not entries[0].is_dir():
            return root
        root = entries[0]
