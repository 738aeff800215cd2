"""Nothing that trains sees validation images or labels, nor a label of an unlabelled image.

Both are planted in a copy of the data: validation images and the files with labels for all images
are garbage, and the list of unlabelled images has boxes, which it never has when it is prepared
(``test_preparation_layouts.py`` proves that). Besides, every file that is opened is recorded, so
that a part is held to exactly the files that are its own.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from clip_data import TINY_CLIP
from mmengine.registry import DATASETS, RUNNERS, DefaultScope, init_default_scope

from mmdsym.clip import CLIPScorer
from mmdsym.clip.labelled_crops import read_rgb
from mmdsym.config import complete_config
from mmdsym.datasets import LoadCachedImageFromFile
from mmdsym.errors import UserError

SPLIT = 'annotations/40pct_seed0'


def images(begin: int, end: int) -> set[str]:
    return {f'images/{index:03d}.png' for index in range(begin, end)}


BURN_IN = {f'{SPLIT}/burn_in.json', *images(0, 4)}
CALIBRATION = {f'{SPLIT}/calibration.json', *images(4, 6)}
UNLABELLED_FILE = f'{SPLIT}/unlabelled.json'
UNLABELLED = {UNLABELLED_FILE, *images(6, 10)}
LABEL_FILES = ('annotations/val.json', 'annotations/train.json')
PLANTED = {*LABEL_FILES, *images(10, 12)}

_watched: dict[str, set[str]] = {}


def _note(event: str, arguments: tuple) -> None:
    if event != 'open' or not _watched or not isinstance(arguments[0], (str, bytes, os.PathLike)):
        return
    path = os.path.abspath(os.fsdecode(arguments[0]))
    for root, opened in _watched.items():
        if path.startswith(f'{root}/'):
            opened.add(path[len(root) + 1 :])


# Python never forgets such a hook; it does nothing while nobody watches.
sys.addaudithook(_note)


@contextmanager
def files_opened_in(root: Path) -> Iterator[set[str]]:
    """Yields the files below a folder that are opened meanwhile, as paths below it."""
    opened = _watched[str(root)] = set()
    try:
        yield opened
    finally:
        del _watched[str(root)]


@pytest.fixture(scope='module')
def planted(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('planted') / 'data'
    shutil.copytree(tiny_data, root)
    every_box = json.loads((root / 'annotations/train.json').read_text())['annotations']
    path = root / UNLABELLED_FILE
    unlabelled = json.loads(path.read_text())
    own = {image['id'] for image in unlabelled['images']}
    unlabelled['annotations'] = [box for box in every_box if box['image_id'] in own]
    assert len(unlabelled['annotations']) == 8
    path.write_text(json.dumps(unlabelled))
    for name in PLANTED:
        (root / name).write_bytes(b'nothing that trains may read this')
    return root


@pytest.fixture
def config(tiny_config, planted):
    """Returns a function that completes a config on the planted data."""
    init_default_scope('mmdet')

    def load(name: str, **options):
        return complete_config(tiny_config(name, data_root=f'{planted}/', **options))

    yield load
    DefaultScope._instance_dict.clear()


def serve(dataset: dict) -> list:
    """Builds a data set and returns all of its samples."""
    built = DATASETS.build(dataset)
    return [built[index] for index in range(len(built))]


def test_reading_what_is_planted_is_noticed(config, planted):
    cfg = config('baselines/teacher_student_neu_40pct.py')
    with files_opened_in(planted) as opened:
        for name in LABEL_FILES:
            with pytest.raises(UserError, match='not a COCO annotation file'):
                DATASETS.build({**cfg.val_dataloader.dataset, 'ann_file': str(planted / name)})
        for name in images(10, 12):
            with pytest.raises(UserError, match='cannot be read'):
                LoadCachedImageFromFile().transform(dict(img_path=str(planted / name)))
        assert opened == PLANTED
        opened.clear()
        for name in images(10, 12):
            with pytest.raises(UserError, match='is damaged'):
                read_rgb(planted / name)
        assert opened == images(10, 12)


def test_diffusion_learns_from_labelled_images_alone(config, planted):
    with files_opened_in(planted) as opened:
        cfg = config('diffusion/defect_inpaint_neu_40pct.py')
        opened.clear()
        samples = serve(cfg.train_dataloader.dataset)
        assert opened == BURN_IN
        judged = serve(cfg.val_dataloader.dataset)
    assert len(samples) == 4 and len(judged) == 2
    assert opened == BURN_IN | CALIBRATION


def test_clip_learns_from_labelled_crops_alone(config, planted):
    with files_opened_in(planted) as opened:
        cfg = config('clip/adapt_clip_neu_40pct.py')
        opened.clear()
        assert len(serve(cfg.train_dataloader.dataset)) >= 8
        assert opened == BURN_IN
        assert len(serve(cfg.val_dataloader.dataset)) >= 4
        assert opened == BURN_IN | CALIBRATION


def test_clip_prototypes_come_from_labelled_crops_alone(config, planted):
    with files_opened_in(planted) as opened:
        cfg = config('dsym_neu_40pct.py')
        prototypes = {**cfg.clip_scorer.prototypes, 'cache_dir': None}
        opened.clear()
        scorer = CLIPScorer(classes=('dent', 'spot'), model=TINY_CLIP, prototypes=prototypes)
        scorer.prepare()
    assert len(scorer.prototypes.keys) >= 8 and scorer.held_out.crops >= 4
    assert opened == BURN_IN | CALIBRATION


def test_thresholds_come_from_labelled_images_alone(config, planted):
    cfg = config('dsym_neu_40pct.py')
    (hook,) = (h for h in cfg.custom_hooks if h.type == 'mmdsym.ThresholdCalibrationHook')
    with files_opened_in(planted) as opened:
        judged = serve(hook.dataloader.dataset)
        assert opened == CALIBRATION
        serve(hook.further_dataloader.dataset)
    assert [len(sample['data_samples'].gt_instances) for sample in judged] == [2, 2]
    assert opened == BURN_IN | CALIBRATION


@pytest.fixture
def sources(config, tmp_path) -> dict[str, dict]:
    """The sources of the whole method, with synthetic images by copy-paste."""
    sources = config('dsym_neu_40pct.py').train_dataloader.dataset.sources
    synthetic = dict(
        sources.synthetic,
        synthesiser=dict(type='mmdsym.CopyPasteSynthesiser'),
        accept=None,
        count=4,
        cache_dir=str(tmp_path / 'synthetic'),
    )
    return {**sources, 'synthetic': synthetic}


OWN_FILES = dict(
    labelled=BURN_IN, calibration=CALIBRATION, synthetic=BURN_IN, unlabelled=UNLABELLED
)


def boxes_served(samples: list[dict]) -> int:
    return sum(
        len(view.gt_instances)
        for sample in samples
        for view in sample['data_samples'].values()
        if view is not None
    )


def test_each_training_source_opens_its_own_files_alone(sources, planted):
    assert set(sources) == set(OWN_FILES)
    for name, source in sources.items():
        with files_opened_in(planted) as opened:
            samples = serve(source)
        assert opened == OWN_FILES[name], name
        # The list of unlabelled images is planted with boxes: they must reach nobody.
        assert (boxes_served(samples) == 0) == (name == 'unlabelled'), name


def test_all_sources_together_serve_every_sample(sources, planted):
    with files_opened_in(planted) as opened:
        samples = serve(dict(type='mmdsym.MultiSourceDataset', sources=sources))
    assert len(samples) == 4 + 2 + 4 + 4
    assert opened == BURN_IN | CALIBRATION | UNLABELLED


STAGES = dict(
    burn_in=dict(begin=0, end=1, images=dict(labelled=4)),
    joint=dict(
        begin=1,
        end=2,
        images=dict(labelled=2, unlabelled=4),
        # Every box of an untrained teacher is kept, so that pseudo-labels are real.
        thresholds=dict(keep=0.0, drop=0.0),
    ),
    refine=dict(
        begin=2,
        end=3,
        images=dict(labelled=1, calibration=2, unlabelled=2),
        thresholds=dict(target_precision=0.5),
    ),
)


def test_a_real_run_of_all_stages_opens_no_planted_file(config, planted, tmp_path):
    cfg = config('baselines/teacher_student_neu_40pct.py')
    cfg.work_dir = str(tmp_path)
    cfg.train_cfg = dict(type='mmdsym.StagedTrainLoop', stages=STAGES)
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    # What evaluates may read the validation data, what trains may not.
    for part in ('dataloader', 'cfg', 'evaluator'):
        cfg[f'val_{part}'] = cfg[f'test_{part}'] = None
    cfg.model.detector.backbone.pretrained = None
    cfg.model.detector.test_cfg.update(score_thr=0.0, max_per_img=5)
    cfg.param_scheduler = []
    scorer = dict(
        type='mmdsym.CLIPScorer',
        model=TINY_CLIP,
        prototypes=dict(
            ann_file=str(planted / SPLIT / 'burn_in.json'),
            held_out_file=str(planted / SPLIT / 'calibration.json'),
            images_dir=str(planted / 'images'),
        ),
    )
    labelled = dict(
        ann_file=str(planted / SPLIT / 'burn_in.json'), images_dir=str(planted / 'images')
    )
    hook = dict(type='mmdsym.CLIPPseudoLabelFilterHook', scorer=scorer, labelled=labelled)
    cfg.custom_hooks = [hook, *cfg.custom_hooks]
    cfg.experiment_name = f'planted_{tmp_path.name}'
    with files_opened_in(planted) as opened:
        runner = RUNNERS.build(cfg)
        runner.train()
    assert runner.iter == 3
    assert opened == BURN_IN | CALIBRATION | UNLABELLED
