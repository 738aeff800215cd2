"""Samples of the synthetic images that the run learned from."""

from __future__ import annotations

from pathlib import Path

from mmdsym.config import walk
from mmdsym.diffusion.cache_manifest import read_manifests
from mmdsym.diffusion.labelled_images import read_labelled_images
from mmdsym.diffusion.synthesis_sheet import draw_synthesis_sheet
from mmdsym.report.material import Material
from mmdsym.report.parts import Picture, Section, Table, absent


def synthesis_section(material: Material) -> Section:
    """Draws real beside synthetic defects, with what was painted and rejected."""
    settings = _settings(material)
    if settings is None:
        return absent('The run learned from no synthetic images.')
    root = Path(settings['cache_dir'])
    caches = list(read_manifests(root))
    if not caches:
        return absent(f'There is no finished cache of synthetic images in {root} any more.')
    folder, manifest = max(caches, key=lambda cache: (cache[0] / 'manifest.json').stat().st_mtime)
    origin = manifest['labelled']
    labelled = read_labelled_images(
        dict(
            type='mmdsym.DefectDataset',
            ann_file=origin['ann_file'],
            data_prefix=dict(img=origin['images']),
        )
    )
    sheet = draw_synthesis_sheet(folder, manifest, labelled)
    caption = 'Real defects beside synthetic ones, by class and size.'
    picture = Picture.of_photographs('synthetic_defects', caption, sheet.image)
    text = [f'Cache {folder.name} in {root}.']
    if len(caches) > 1:
        text.append(
            f'The folder holds {len(caches)} caches; this is the newest, which need not be the one '
            'that this run used.'
        )
    return Section(text, (_outcomes(manifest),), (picture,))


def _settings(material: Material) -> dict | None:
    for entry in walk(material.config.get('train_dataloader') or {}):
        if str(entry.get('type', '')).split('.')[-1] == 'DiffusionSynthesisDataset':
            return entry
    return None


def _outcomes(manifest: dict) -> Table:
    rows = [
        (name, *(str(counts[key]) for key in ('regions', 'attempts', 'rejected', 'given_up')))
        for name, counts in manifest.get('outcomes', {}).items()
    ]
    head = ('class', 'regions asked for', 'painted', 'rejected', 'given up')
    return Table(head, rows, 'What was painted, and what the acceptance test rejected')
