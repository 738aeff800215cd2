"""What holds for all tests, and data that every test may use."""

from __future__ import annotations

import json
import logging
import runpy
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

# A busy machine is slow: how long an example takes says nothing about whether it is right.
settings.register_profile('patient', deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile('patient')
warnings.filterwarnings('ignore', message='pkg_resources is deprecated')

REPOSITORY = Path(__file__).resolve().parents[1]
CLASSES = ('dent', 'spot')


def write_coco(path: Path, images: list[dict], annotations: list[dict]) -> None:
    categories = [{'id': index + 1, 'name': name} for index, name in enumerate(CLASSES)]
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {'images': images, 'annotations': annotations, 'categories': categories}
    path.write_text(json.dumps(content))


def draw_image(generator: np.random.Generator, size: int) -> tuple[np.ndarray, list[tuple]]:
    """A grey image with one rectangle per class, and its (label, x, y, width, height)."""
    pixels = generator.normal(110, 6, (size, size))
    boxes = []
    for label in range(len(CLASSES)):
        width, height = generator.integers(size // 5, size // 2, 2)
        x = generator.integers(0, size - width)
        y = generator.integers(0, size - height)
        pixels[y : y + height, x : x + width] += 70 * (1 - 2 * label)
        boxes.append((label, int(x), int(y), int(width), int(height)))
    return pixels.clip(0, 255).astype(np.uint8), boxes


def make_data(root: Path, count: int = 12, size: int = 64) -> Path:
    """A prepared data set: 4 images for burn-in, 2 for calibration, 4 unlabelled, 2 to validate."""
    generator = np.random.default_rng(0)
    (root / 'images').mkdir(parents=True)
    images, annotations = [], []
    for index in range(count):
        pixels, boxes = draw_image(generator, size)
        name = f'{index:03d}.png'
        Image.fromarray(pixels).save(root / 'images' / name)
        images.append({'id': index + 1, 'file_name': name, 'width': size, 'height': size})
        for label, *box in boxes:
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': index + 1,
                    'category_id': label + 1,
                    'bbox': box,
                    'area': box[2] * box[3],
                    'iscrowd': 0,
                }
            )

    def write(name: str, begin: int, end: int, labels: bool = True) -> None:
        chosen = {image['id'] for image in images[begin:end]}
        write_coco(
            root / 'annotations' / name,
            images[begin:end],
            [a for a in annotations if labels and a['image_id'] in chosen],
        )

    write('train.json', 0, count - 2)
    write('val.json', count - 2, count)
    write('40pct_seed0/labelled.json', 0, 6)
    write('40pct_seed0/burn_in.json', 0, 4)
    write('40pct_seed0/calibration.json', 4, 6)
    write('40pct_seed0/unlabelled.json', 6, count - 2, labels=False)
    return root


def call_tool(monkeypatch: pytest.MonkeyPatch, tool: str, *arguments: object) -> None:
    """Runs ``tools/<tool>`` in this process, as the command line would."""
    path = str(REPOSITORY / 'tools' / tool)
    monkeypatch.setattr(sys, 'argv', [path, *map(str, arguments)])
    runpy.run_path(path, run_name='__main__')


@pytest.fixture(autouse=True)
def unformatted_configs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares each runner the seconds in which MMEngine lays out its config for the log."""
    if 'mmengine.config' in sys.modules:
        # MMEngine has it by name; its fork looks it up where it is defined.
        for module in ('mmengine.config.config', 'yapf.yapflib.yapf_api'):
            name = f'{module}.FormatCode'
            monkeypatch.setattr(name, lambda text, **_: (text, True), raising=False)


@pytest.fixture(scope='session')
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set of twelve images, split like any other."""
    return make_data(tmp_path_factory.mktemp('tiny') / 'data')


@pytest.fixture
def tiny_config(tiny_data: Path):
    """Returns a function that loads a config of the repository on the tiny data."""
    from mmengine.config import Config

    def load(name: str, **options):
        cfg = Config.fromfile(REPOSITORY / 'configs' / name)
        cfg.merge_from_dict({'data_root': f'{tiny_data}/', 'image_size': (96, 96), **options})
        return cfg

    return load


@pytest.fixture(scope='module')
def labelled(tiny_data: Path):
    """The labelled images of the tiny data, as synthesis reads them."""
    from synthesis_data import read

    return read(tiny_data)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture):
    """What MMEngine's logger says, which hands nothing on to that of pytest."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)
