"""Feeds the readers of annotations with what no annotator would write, until a time is over.

Needs the extra ``fuzz`` (atheris, for Linux). Each reader may refuse its input with its own errors
alone; anything else ends the run, and the input lies in the folder that ``--found`` names.

Example:
    pip install .[fuzz]
    python tools/fuzz_annotations.py --seconds 600
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

try:
    import atheris
except ImportError:
    print("error: atheris is missing: install it with pip install '.[fuzz]'.", file=sys.stderr)
    raise SystemExit(2) from None

with atheris.instrument_imports(include=['mmdsym.datasets.preparation', 'json', 'yaml']):
    from mmdsym.datasets.preparation.sources import coco, labelme, voc, yolo
    from mmdsym.errors import UserError

SEEDS = {
    'coco': b'{"images":[{"id":1,"file_name":"a.png","width":40,"height":30}],"annotations":'
    b'[{"id":1,"image_id":1,"category_id":1,"bbox":[1,2,3,4],"segmentation":[[1,2,3,4,5,6]]},'
    b'{"id":2,"image_id":1,"category_id":1,"segmentation":{"size":[30,40],"counts":[5,1195]}}],'
    b'"categories":[{"id":1,"name":"dent","supercategory":"none"}]}',
    'labelme': b'{"imagePath":"a.png","imageWidth":40,"imageHeight":30,"shapes":[{"label":"dent",'
    b'"points":[[1,2],[3,4]],"shape_type":"rectangle","group_id":1}]}',
    'voc': b'<annotation><filename>a.png</filename><size><width>40</width><height>30</height>'
    b'</size><object><name>dent</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax>'
    b'</bndbox></object></annotation>',
    'yolo': b'0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.2 0.1 0.2 0.2\n',
    'yaml': b'names: {0: dent, 1: crack}\n',
}


class Readers:
    """One reader for each layout, in a folder with a single image.

    Args:
        folder: Is filled.
    """

    def __init__(self, folder: Path) -> None:
        self._roots = {layout: folder / layout for layout in SEEDS}
        for root in self._roots.values():
            root.mkdir()
            Image.new('L', (40, 30)).save(root / 'a.png')
        (self._roots['yolo'] / 'classes.txt').write_text('dent\ncrack\n')
        self.executions: Counter[str] = Counter()
        self._readers: dict[str, Callable[[bytes], object]] = {
            'coco': self._coco,
            'labelme': self._labelme,
            'voc': self._voc,
            'yolo': self._yolo,
            'yaml': self._yaml,
        }

    def read(self, data: bytes) -> None:
        """Reads one input: its first byte chooses the reader."""
        if not data:
            return
        names = list(self._readers)
        name = names[data[0] % len(names)]
        self.executions[name] += 1
        with suppress(UserError):
            self._readers[name](data[1:])

    def seeds(self) -> list[bytes]:
        """Returns a sound input for each reader."""
        return [bytes([index]) + SEEDS[name] for index, name in enumerate(self._readers)]

    def _coco(self, data: bytes) -> None:
        (self._roots['coco'] / 'all.json').write_bytes(data)
        coco.read_coco(self._roots['coco'])

    def _labelme(self, data: bytes) -> None:
        (self._roots['labelme'] / 'a.json').write_bytes(data)
        labelme.read_labelme(self._roots['labelme'])

    def _voc(self, data: bytes) -> None:
        (self._roots['voc'] / 'a.xml').write_bytes(data)
        voc.read_voc(self._roots['voc'])

    def _yolo(self, data: bytes) -> None:
        (self._roots['yolo'] / 'a.txt').write_bytes(data)
        yolo.read_yolo(self._roots['yolo'])

    def _yaml(self, data: bytes) -> None:
        (self._roots['yaml'] / 'data.yaml').write_bytes(data)
        yolo.read_class_names(self._roots['yaml'])


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--seconds', type=int, default=600, help='time for it (600)')
    parser.add_argument('--found', type=Path, default=Path('fuzz_findings'), help='for inputs')
    parser.add_argument('--seed', type=int, default=1, help='of the mutations (1)')
    return parser.parse_args()


def main() -> None:
    """Fuzzes until the time is over or something is found."""
    args = parse_args()
    args.found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / 'corpus'
        corpus.mkdir()
        readers = Readers(Path(folder))
        for number, seed in enumerate(readers.seeds()):
            (corpus / str(number)).write_bytes(seed)
        began = time.monotonic()

        def one(data: bytes) -> None:
            readers.read(data)
            if time.monotonic() - began > args.seconds:
                total = sum(readers.executions.values())
                print(
                    json.dumps(dict(seconds=args.seconds, executions=total, **readers.executions))
                )
                sys.stdout.flush()
                # libFuzzer knows no other way to end without a finding.
                os._exit(0)

        options = [f'-artifact_prefix={args.found}/', f'-seed={args.seed}', '-rss_limit_mb=2048']
        atheris.Setup([sys.argv[0], str(corpus), '-max_len=2000', '-timeout=20', *options], one)
        atheris.Fuzz()


if __name__ == '__main__':
    main()
