"""The report of a run, made of real runs on tiny data."""

from __future__ import annotations

import copy
import io
import json
import logging
import re
import shutil
from html.parser import HTMLParser
from math import isnan
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, call_tool, make_data
from mmengine.config import Config
from mmengine.registry import RUNNERS, DefaultScope, init_default_scope
from PIL import Image

from mmdsym.clip.filter_counts import FilterCounts
from mmdsym.errors import UserError
from mmdsym.pipeline.starts import note_start, read_starts, validation_of
from mmdsym.registry import DATASETS
from mmdsym.report import material as material_module
from mmdsym.report import read_warnings, reference, write_report
from mmdsym.report.predictions import ValidationData
from mmdsym.report.quality import Agreement, match_boxes, measure_accuracy
from mmdsym.report.reference import find_reference
from mmdsym.report.sections.progress import losses_by_branch
from mmdsym.report.style import class_colour, class_colour_code, short_name, small_multiples
from mmdsym.report.text_log import warnings_of
from mmdsym.run_log import RunLog, read_run_log
from mmdsym.trained_run import dataset_for_testing, load_run

ODD_NAMES = ('<script>dent</script> & $x_1$', 'spot "裂" é')
STAGES = dict(
    burn_in=dict(begin=0, end=4, images=dict(labelled=2)),
    joint=dict(
        begin=4,
        end=8,
        images=dict(labelled=2, unlabelled=2),
        thresholds=dict(target_precision=0.0, covered_recall=1.0),
    ),
)


def detector() -> dict:
    return dict(
        type='RetinaNet',
        data_preprocessor=dict(
            type='DetDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, pad_size_divisor=32
        ),
        backbone=dict(type='ResNet', depth=18, base_channels=8, out_indices=(1, 2, 3)),
        neck=dict(type='FPN', in_channels=[16, 32, 64], out_channels=16, num_outs=3),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=1,
            in_channels=16,
            feat_channels=16,
            stacked_convs=1,
            anchor_generator=dict(
                type='AnchorGenerator',
                ratios=[1.0],
                octave_base_scale=4,
                scales_per_octave=1,
                strides=[8, 16, 32],
            ),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
            loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25),
            loss_bbox=dict(type='L1Loss'),
        ),
        train_cfg=dict(
            assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
        test_cfg=dict(
            nms_pre=20, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=5
        ),
    )


def odd_data(root: Path) -> Path:
    """The tiny data with class names that no page, plot or file name likes."""
    make_data(root)
    for path in root.rglob('*.json'):
        content = json.loads(path.read_text())
        for category, name in zip(content['categories'], ODD_NAMES, strict=True):
            category['name'] = name
        path.write_text(json.dumps(content))
    return root


def read_base(data: Path, name: str, *bases: str) -> Config:
    path = data.parent / f'{name}.py'
    lines = [f'{str(REPOSITORY / "configs/_base_" / base)!r},' for base in bases]
    path.write_text(f'_base_ = [{"".join(lines)}]\n')
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(dict(data_root=f'{data}/', split='40pct_seed0', image_size=(64, 64)))
    for part in ('train_dataloader', 'val_dataloader'):
        cfg[part].update(num_workers=0, persistent_workers=False)
    cfg.test_dataloader = cfg.val_dataloader
    cfg.test_evaluator = cfg.val_evaluator
    cfg.default_hooks.logger.interval = 1
    cfg.default_hooks.checkpoint.update(interval=4, max_keep_ckpts=-1)
    cfg.optim_wrapper.paramwise_cfg = None
    cfg.param_scheduler = []
    return cfg


def train(cfg: Config, work_dir: Path, **options) -> Path:
    cfg = cfg.copy()
    cfg.work_dir = str(work_dir)
    cfg.merge_from_dict(options)
    # MMEngine knows visualizers and runs by name: those of an earlier run would be taken again.
    cfg.visualizer.name = cfg.experiment_name = f'{work_dir.parent.name}_{len(options)}'
    cfg.experiment_name += work_dir.name
    cfg.visualizer.name += work_dir.name
    RUNNERS.build(cfg).train()
    DefaultScope._instance_dict.clear()
    return work_dir


@pytest.fixture(scope='module')
def pair_config(tmp_path_factory) -> Config:
    data = odd_data(tmp_path_factory.mktemp('odd') / 'data')
    bases = ('runtime.py', 'semi/dsym.py', 'schedules/stages_cpu.py')
    cfg = read_base(data, 'teacher_student', *bases)
    cfg.model = dict(type='mmdsym.DSYMDetector', detector=detector())
    cfg.train_cfg = dict(type='mmdsym.StagedTrainLoop', stages=STAGES, val_interval=100)
    for hook in cfg.custom_hooks:
        if 'Calibration' in hook.type or 'Monitor' in hook.type:
            hook.interval = 2
    return cfg


@pytest.fixture(scope='module')
def runs(pair_config, tmp_path_factory) -> Path:
    """A folder with a run of teacher and student, and a supervised one."""
    folder = tmp_path_factory.mktemp('runs')
    train(pair_config, folder / 'pair')
    data = Path(pair_config.data_root)
    bases = ('runtime.py', 'datasets/supervised.py', 'schedules/adamw.py')
    cfg = read_base(data, 'supervised', *bases)
    cfg.model = detector()
    cfg.train_dataloader.batch_size = 2
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=4)
    cfg.val_cfg, cfg.test_cfg = dict(type='ValLoop'), dict(type='TestLoop')
    train(cfg, folder / 'supervised')
    return folder


def copy_run(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    # It would go on to name the checkpoint of the original.
    pointer = target / 'last_checkpoint'
    pointer.write_text(str(target / Path(pointer.read_text().strip()).name))
    return target


@pytest.fixture
def pair(runs, tmp_path) -> Path:
    return copy_run(runs / 'pair', tmp_path / 'pair')


@pytest.fixture
def supervised(runs, tmp_path) -> Path:
    return copy_run(runs / 'supervised', tmp_path / 'supervised')


class Page(HTMLParser):
    """Text of a page by title, its tags and addresses."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags, self.addresses, self.sections = set(), [], {'': ''}
        self._in_title, self._title = False, ''
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ('src', 'href')]
        self._in_title = tag == 'h2'

    def handle_data(self, data):
        if self._in_title:
            self._title, self._in_title = data.strip(), False
        self.sections[self._title] = self.sections.get(self._title, '') + data


def test_the_page_holds_everything_and_needs_nothing(pair, supervised):
    page_file = write_report(pair)
    assert page_file == pair / 'report' / 'index.html'
    page = Page(page_file)
    assert 'script' not in page.tags and 'link' not in page.tags
    assert all(address.startswith(('#', 'data:image/')) for address in page.addresses)
    assert page_file.stat().st_size < 5e6
    pictures = sorted(path.stem for path in page_file.parent.glob('*.png'))
    assert pictures == [
        'accuracy',
        'confusion',
        'detections_best',
        'detections_worst',
        'losses',
        'precision_recall',
        'pseudo_labels_kept',
        'pseudo_labels_not_kept',
        'thresholds',
    ]
    embedded = [address for address in page.addresses if address.startswith('data:')]
    assert len(embedded) == len(pictures)
    for path in page_file.parent.glob('*.png'):
        with Image.open(path) as image:
            assert min(image.size) > 200
    for name in ODD_NAMES:
        assert name in page.sections['Accuracy of each class']
    head = page.sections['']
    log = read_run_log(pair)
    for network in ('teacher', 'student'):
        value = log.of(f'{network}/coco/bbox_mAP_50')[8]
        assert f'{100 * value:.1f} %' in head
    assert 'points' in head and 'the supervised run supervised' in head
    assert 'labelled.json' in head
    # The evaluation of the report is that of the training.
    assert 'Training logged' not in head and 'not finished' not in head
    assert 'tools/train.py' in page.sections['Commands']
    assert 'mmdsym.DSYMDetector' in page.sections['Config']
    assert '8 of 8' in page.sections['Versions, machine and time']
    assert 'no CLIP filter' in page.sections['CLIP filter']
    assert 'no synthetic images' in page.sections['Synthetic defects']
    assert 'There is no data card' in page.sections['Data']
    summary = json.loads((page_file.parent / 'report.json').read_text())
    assert (summary['checkpoint'], summary['iteration']) == ('iter_8.pth', 8)
    assert not [path for path in pair.iterdir() if path.name.startswith('.')]


def test_predictions_serve_again_until_the_checkpoint_changes(pair, monkeypatch):
    write_report(pair)

    def refuse(*_):
        raise AssertionError('predicted anew')

    monkeypatch.setattr(material_module, 'predict', refuse)
    write_report(pair)
    shutil.copy(pair / 'iter_4.pth', pair / 'iter_8.pth')
    with pytest.raises(AssertionError, match='predicted anew'):
        write_report(pair)
    assert (pair / 'report' / 'index.html').is_file()


def test_nothing_that_somebody_wrote_is_lost(supervised):
    page = write_report(supervised)
    (page.parent / 'notes.txt').write_text('mine')
    with pytest.raises(UserError, match=r'notes\.txt.*--force'):
        write_report(supervised)
    write_report(supervised, force=True)
    assert (supervised / 'report_kept_1' / 'notes.txt').read_text() == 'mine'
    assert not (page.parent / 'notes.txt').exists()
    page.write_text('edited by hand')
    with pytest.raises(UserError, match=r'index\.html'):
        write_report(supervised)
    assert page.read_text() == 'edited by hand'


def test_a_report_that_was_being_replaced_comes_back(supervised):
    page = write_report(supervised)
    page.parent.rename(supervised / '.report_replaced')
    write_report(supervised)
    assert page.is_file() and not (supervised / '.report_replaced').exists()


def test_a_failure_leaves_the_earlier_report(supervised, monkeypatch):
    page = write_report(supervised)
    before = page.read_bytes()
    from mmdsym.report import folder

    def full(path, content):
        raise UserError('no space is left')

    monkeypatch.setattr(folder, 'write_file', full)
    with pytest.raises(UserError, match='no space'):
        write_report(supervised)
    assert page.read_bytes() == before
    assert not list(supervised.glob('.unfinished*'))


def test_a_plain_detector_has_no_teacher(supervised):
    page = Page(write_report(supervised))
    assert 'detector: mAP@0.5' in page.sections['']
    for title in ('Pseudo-labels over time', 'Thresholds over time'):
        assert 'plain detector' in page.sections[title]


def test_an_interrupted_run_says_so(pair):
    (pair / 'iter_8.pth').unlink()
    (pair / 'last_checkpoint').write_text(str(pair / 'iter_4.pth'))
    page = Page(write_report(pair))
    assert 'iteration 4 of 8; go on with --resume' in page.sections['']
    assert 'nobody knows' in page.sections['']  # no supervised run lies beside it


def test_a_run_below_the_supervised_one_is_marked(pair, supervised):
    for path in supervised.glob('*/vis_data/*.json'):
        path.write_text(json.dumps({'coco/bbox_mAP_50': 0.99, 'step': 4}))
    text = write_report(pair).read_text()
    assert re.search(r'<p class="warning">[\d.]+ points below the supervised run', text)
    assert 'at iteration 4, trained on labelled.json; this run is at 8)' in text
    assert write_report(pair, reference=supervised).is_file()
    with pytest.raises(UserError, match='trained teacher and student'):
        write_report(pair, reference=pair)


def test_a_supervised_run_of_equal_length_is_compared_before_a_better_one(pair, supervised):
    as_long = copy_run(supervised, supervised.with_name('as_long'))
    for folder, map50, step in ((supervised, 0.99, 4), (as_long, 0.5, 8)):
        for path in folder.glob('*/vis_data/*.json'):
            path.write_text(json.dumps({'coco/bbox_mAP_50': map50, 'step': step}))
    config = load_run(pair).config
    reference = find_reference(pair, config)
    assert (reference.name, reference.step) == ('as_long', 8)
    shutil.rmtree(as_long)
    assert find_reference(pair, config).name == 'supervised'
    # Interrupted in its last validation, and tested since.
    tested = dict(iteration=8, metrics=dict(detector={'coco/bbox_mAP_50': 0.6}))
    (supervised / 'results.json').write_text(json.dumps(tested))
    assert find_reference(pair, config).step == 8
    assert find_reference(pair, config).map50 == 0.6


def test_without_the_validation_images_the_log_speaks(supervised):
    config = supervised / 'supervised.py'
    config.write_text(config.read_text().replace('/images/', '/moved/'))
    page = Page(write_report(supervised))
    value = read_run_log(supervised).of('coco/bbox_mAP_50')[4]
    assert f'{100 * value:.1f} %' in page.sections['']
    assert 'could not be evaluated' in page.sections['']
    assert 'Left out' in page.sections['Detections on validation images']
    assert (supervised / 'report' / 'losses.png').is_file()


def test_a_report_that_says_more_is_not_replaced(supervised):
    page = write_report(supervised)
    before = page.read_text()
    config = supervised / 'supervised.py'
    config.write_text(config.read_text().replace('/images/', '/moved/'))
    with pytest.raises(UserError, match='validation images that are not there now .*--force'):
        write_report(supervised)
    assert page.read_text() == before
    assert write_report(supervised, force=True) == page
    assert (supervised / 'report_kept_1/index.html').read_text() == before
    assert any('could not be evaluated' in warning for warning in read_warnings(page.parent))


def test_a_reference_is_left_out_once_the_validation_boxes_changed(pair, supervised):
    config = load_run(pair).config
    note_start(supervised, 0, validation=validation_of(config))
    assert find_reference(pair, config).name == 'supervised'
    path = Path(dataset_for_testing(config)['ann_file'])
    content = json.loads(path.read_text())
    content['annotations'].pop()
    corrected = path.with_name('corrected.json')
    corrected.write_text(json.dumps(content))
    with pytest.MonkeyPatch.context() as patch:
        # The same name, other boxes.
        now = validation_of(edited(config, corrected))
        patch.setattr(reference, 'validation_of', lambda _: now)
        assert find_reference(pair, config) is None
        with pytest.raises(UserError, match='was validated before .* changed'):
            write_report(pair, reference=supervised)


def edited(config: Config, ann_file: Path) -> Config:
    changed = config.copy()
    dataset_for_testing(changed)['ann_file'] = str(ann_file)
    return changed


def test_validation_images_without_boxes(supervised):
    config = supervised / 'supervised.py'
    text = config.read_text()
    path = Path(re.search(r"'([^']+/val\.json)'", text)[1])
    content = json.loads(path.read_text()) | {'annotations': []}
    empty = path.with_name('val_without_boxes.json')
    empty.write_text(json.dumps(content))
    config.write_text(text.replace('/val.json', '/val_without_boxes.json'))
    for log in supervised.glob('*/vis_data/*.json'):
        log.write_text('')
    page = Page(write_report(supervised))
    assert '– %' in page.sections['']
    assert 'no accuracy to measure' in page.sections['Accuracy of each class']
    assert 'not validated' in page.sections['Accuracy over time']
    assert 'logged no loss' in page.sections['Losses over time']


def test_a_run_without_checkpoint_is_refused(tmp_path):
    for folder, words in ((tmp_path, 'no checkpoint'), (tmp_path / 'none', 'no work directory')):
        with pytest.raises(UserError, match=words):
            write_report(folder)


def test_a_resumed_run_is_one_run(pair_config, pair):
    first = read_run_log(pair)
    train(
        pair_config, pair, resume=True, load_from=str(pair / 'iter_4.pth'), **{'randomness.seed': 0}
    )
    log = read_run_log(pair)
    assert len(log.starts) == 2
    assert list(log.of('loss')) == list(range(1, 9))
    assert {s: log.of('time')[s] for s in (1, 2, 3)} == {s: first.of('time')[s] for s in (1, 2, 3)}
    assert log.of('time')[8] != first.of('time')[8]
    write_report(pair)


def write_log(folder: Path, start: str, lines: list[dict]) -> None:
    path = folder / start / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(map(json.dumps, lines)) + '\n{"half a li')


def test_each_start_is_told_with_its_commit(supervised):
    for iteration, commit in ((0, 'abc'), (2, 'def')):
        note_start(supervised, iteration)
        starts = read_starts(supervised)
        starts[-1].update(commit=commit, processes=2)
        (supervised / 'starts.json').write_text(json.dumps(starts))
    section = Page(write_report(supervised)).sections['Versions, machine and time']
    assert 'from iteration 0, commit abc' in section and 'from iteration 2, commit def' in section
    assert 'Several commits took part' in section and '2 processes' in section


def test_logs_are_merged_by_iteration(tmp_path):
    old = [dict(loss=float(step), time=1.0, step=step) for step in (10, 20, 30, 40)]
    write_log(tmp_path, '20260101_000000', [*old, {'threshold/keep_x': 0.5, 'step': 35}])
    new = [dict(loss=float(-step), time=3.0, step=step) for step in (30, 50)]
    write_log(tmp_path, '20260102_000000', new)
    log = read_run_log(tmp_path)
    assert dict(log.of('loss')) == {10: 10, 20: 20, 30: -30, 50: -50}
    assert not log.of('threshold/keep_x')  # of iterations that were done again
    assert log.training_seconds == 10 + 10 + 30 + 60
    assert log.last_step == 50 and log.last('loss') == (50, -50)
    assert read_run_log(tmp_path / 'none') == RunLog({}, ())


@pytest.mark.parametrize('steps', [(1, 2), (0, 0)])
def test_evaluations_counted_in_epochs_find_their_iteration(tmp_path, steps):
    lines = []
    for trained, step in zip((100, 200), steps, strict=True):
        lines += [dict(loss=1.0, step=trained), {'coco/bbox_mAP_50': trained / 400, 'step': step}]
    write_log(tmp_path, '20260101_000000', lines)
    assert dict(read_run_log(tmp_path).of('coco/bbox_mAP_50')) == {100: 0.25, 200: 0.5}


def test_losses_are_sorted_into_branches():
    names = ('loss', 'sup_loss_cls', 'sup_d0.loss_cls', 'unsup_loss_bbox', 'synthetic_loss_cls')
    branches = losses_by_branch({name: {5: 1.0} for name in (*names, 'sup_acc', 'x/loss')})
    assert branches == {
        'labelled': {'loss_cls': {5: 2.0}},
        'synthetic': {'loss_cls': {5: 1.0}},
        'unlabelled': {'loss_bbox': {5: 1.0}},
    }
    assert losses_by_branch({'loss_rpn_cls': {1: 2.0}, 'loss': {1: 2.0}}) == {
        '': {'loss_rpn_cls': {1: 2.0}}
    }


def test_warnings_are_told_once(tmp_path):
    log = tmp_path / '20260101_000000' / '20260101_000000.log'
    log.parent.mkdir()
    head = '2026/01/01 00:00:0'
    log.write_text(
        f'{head}1 - mmengine - WARNING - Pseudo-labels flood (9.10 boxes an image).\n'
        f'{head}2 - mmengine - INFO - nothing\n'
        f'{head}3 - mmengine - WARNING - Pseudo-labels flood (8.20 boxes an image).\n'
        f'{head}4 - mmengine - WARNING - x.bias is skipped since its requires_grad=False\n'
    )
    assert warnings_of(tmp_path) == [('Pseudo-labels flood (8.20 boxes an image).', 2)]


@pytest.fixture
def four_boxes(tmp_path) -> ValidationData:
    """Two images of two boxes each, whose ids begin with 0, and an empty one."""
    boxes = [(0, 1, [0, 0, 10, 10]), (0, 2, [20, 20, 10, 10])]
    boxes += [(1, 1, [0, 0, 10, 10]), (1, 2, [30, 30, 10, 10])]
    content = dict(
        images=[dict(id=i, file_name=f'{i}.png', width=64, height=64) for i in range(3)],
        categories=[dict(id=1, name='dent'), dict(id=2, name='spot')],
        annotations=[
            dict(id=i, image_id=image, category_id=category, bbox=box, area=100, iscrowd=0)
            for i, (image, category, box) in enumerate(boxes)
        ],
    )
    path = tmp_path / 'val.json'
    path.write_text(json.dumps(content))
    init_default_scope('mmdet')
    settings = dict(ann_file=str(path), data_prefix=dict(img=''), test_mode=True, pipeline=[])
    dataset = DATASETS.build(dict(type='mmdsym.DefectDataset', **settings))
    yield ValidationData(dataset, ('dent', 'spot'))
    DefaultScope._instance_dict.clear()


def found(image, category, box, score):
    return dict(image_id=image, category_id=category, bbox=box, score=score)


def test_detections_are_paired_with_what_they_cover(four_boxes):
    results = [
        found(0, 1, [0, 0, 10, 10], 0.9),  # right
        found(0, 1, [20, 20, 10, 9], 0.8),  # a spot taken for a dent
        found(1, 1, [0, 0, 10, 10], 0.2),  # too low a score
        found(1, 2, [50, 50, 5, 5], 0.7),  # nothing is there
    ]
    matches = match_boxes(four_boxes, results, [0.5, 0.5])
    assert matches.confusion.tolist() == [[1, 0, 1], [1, 0, 1], [0, 1, 0]]
    assert matches.f1(0) == pytest.approx(2 / 4)
    assert matches.f1(1) == 0 and matches.f1(2) == 1
    assert matches.agreement() == Agreement(right=1, found=3, true=4)
    assert matches.agreement(0) == Agreement(right=1, found=2, true=2)
    assert matches.agreement(0).f1 == pytest.approx(1 / 2)
    assert matches.agreement(1).precision == 0 and matches.agreement(1).recall == 0
    accuracy = measure_accuracy(four_boxes, results)
    assert accuracy.true_boxes.tolist() == [2, 2]
    nothing = match_boxes(four_boxes, results, [1.1, 1.1])
    assert nothing.confusion.tolist() == [[0, 0, 2], [0, 0, 2], [0, 0, 0]]
    assert isnan(nothing.agreement().precision) and nothing.agreement().recall == 0
    assert measure_accuracy(four_boxes, []).map50 == 0


@pytest.mark.parametrize('count', [1, 50])
def test_plots_hold_one_class_and_fifty(count, recwarn):
    names = [f'$\\frac{{{index}}}$ class\n_with_a_very_long_name_{index}' for index in range(count)]
    drawn = []

    def draw(axes, label):
        drawn.append(label)
        axes.plot([0, 1], [0, 1], color=class_colour_code(label), label='a')
        axes.plot([0, 1], [1, 0], label='b')

    with Image.open(io.BytesIO(small_multiples(names, draw, 'iteration', 'score'))) as image:
        pixels = np.asarray(image.convert('RGB'))
    assert drawn == list(range(count))
    assert pixels.shape[1] > 700 and pixels.shape[0] < 2500
    for label in range(min(count, 7)):
        assert (pixels == class_colour(label)).all(axis=2).any()
    assert not [w for w in recwarn if 'Glyph' in str(w.message) or 'layout' in str(w.message)]


def test_names_fit_into_plots():
    assert short_name(' a\n b\x00') == 'a b'
    assert short_name('') == '(no name)'
    assert len(short_name('x' * 99)) == 26


def test_tensorboard_gets_every_scalar(runs):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger('tensorboard').setLevel(logging.ERROR)
    events = next((runs / 'pair').glob('*/vis_data/events.out.tfevents*'))
    accumulator = EventAccumulator(str(events.parent))
    accumulator.Reload()
    log = read_run_log(runs / 'pair')
    logged = {event.step: event.value for event in accumulator.Scalars('loss')}
    assert logged == pytest.approx(dict(log.of('loss')), rel=1e-5)
    tags = set(accumulator.Tags()['scalars'])
    assert {'teacher/coco/bbox_mAP_50', 'pseudo_boxes/kept'} <= tags
    assert sum(tag.startswith('threshold/keep_') for tag in tags) == len(ODD_NAMES)


def test_weights_and_biases_takes_every_scalar(pair_config, tmp_path, monkeypatch):
    """Skipped where wandb is not installed: it is no part of the environment."""
    pytest.importorskip('wandb')
    monkeypatch.setenv('WANDB_SILENT', 'true')
    backend = dict(type='WandbVisBackend', init_kwargs=dict(project='defects', mode='offline'))
    backends = [dict(type='LocalVisBackend'), backend]
    train(pair_config, tmp_path / 'run', **{'visualizer.vis_backends': backends})
    written = next(tmp_path.rglob('*.wandb')).read_bytes()
    for name in ('teacher/coco/bbox_mAP_50', 'pseudo_boxes/kept', 'unsup_loss_cls'):
        assert name.encode() in written


def test_the_clip_filter_has_its_section(pair):
    config = pair / 'teacher_student.py'
    hook = "custom_hooks = [dict(type='mmdsym.CLIPPseudoLabelFilterHook')]\n"
    config.write_text(config.read_text() + hook)
    assert 'logged no boxes' in Page(write_report(pair)).sections['CLIP filter']
    counts = FilterCounts(len(ODD_NAMES))
    counts.boxes += np.array([[4, 3], [2, 0], [1, 9]])
    counts.gated += np.array([2, 1])
    counts.images, counts.closed_images = 10, 1
    counts.scored += 10
    counts.scored[1, 1] = 0
    counts.sums += np.array([[3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
    lines = [counts.scalars(ODD_NAMES) | {'clip_filter/share_of_time': 0.125, 'step': 9}]
    write_log(pair, '99990101_000000', lines)
    section = Page(write_report(pair)).sections['CLIP filter']
    assert '12.5%' in section and 'closed for 10%' in section
    assert re.search(r'0\.30\s*0\.50\s*0\.70', section)
    assert re.search(r'0\.40\s*–\s*0\.80', section), 'CLIP was asked about no box of this class'
    assert (pair / 'report' / 'clip_filter.png').is_file()


def test_synthetic_defects_are_shown(pair, pair_config, tmp_path):
    labelled = copy.deepcopy(pair_config.train_dataloader.dataset.sources.labelled)
    labelled.ann_file = f'{pair_config.data_root}annotations/40pct_seed0/burn_in.json'
    labelled.data_prefix = dict(img=f'{pair_config.data_root}images/')
    labelled.pop('pipeline')
    synthetic = dict(
        type='mmdsym.DiffusionSynthesisDataset',
        dataset=labelled.to_dict(),
        synthesiser=dict(type='mmdsym.CopyPasteSynthesiser'),
        cache_dir=str(tmp_path / 'cache'),
        count=3,
        pipeline=[],
    )
    config = pair / 'teacher_student.py'
    config.write_text(
        f"{config.read_text()}train_dataloader['dataset']['sources']['synthetic'] = {synthetic!r}\n"
    )
    title = 'Synthetic defects'
    assert 'no finished cache' in Page(write_report(pair)).sections[title]
    init_default_scope('mmdet')
    DATASETS.build(synthetic)
    DefaultScope._instance_dict.clear()
    page = Page(write_report(pair))
    assert 'regions asked for' in page.sections[title] and ODD_NAMES[0] in page.sections[title]
    assert 'tools/synthesize.py' in page.sections['Commands']
    with Image.open(pair / 'report' / 'synthetic_defects.png') as sheet:
        assert sheet.width > 1600
    for path in (tmp_path / 'cache').rglob('manifest.json'):
        path.write_text('{')
    assert 'is damaged' in Page(write_report(pair)).sections[title]


def test_the_command_says_where_the_page_is(supervised, monkeypatch, capsys):
    call_tool(monkeypatch, 'write_report.py', supervised)
    assert f'the report is {supervised}/report/index.html' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='2'):
        call_tool(monkeypatch, 'write_report.py', supervised / 'none')
    assert capsys.readouterr().err.startswith('error: ')
