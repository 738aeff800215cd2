"""The cache of synthetic images: complete, exact, and made once."""

import errno
import json
import logging
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from PIL import Image
from synthesis_data import COUNT, Stamp, contents, read, synthesis

from mmdsym.atomic_folder import draft_of
from mmdsym.diffusion import cache_key
from mmdsym.diffusion.labelled_images import read_labelled_images
from mmdsym.diffusion.layout_config import LayoutConfig
from mmdsym.diffusion.synthesis import SynthesisReport
from mmdsym.errors import UserError


class Picky:
    """Accepts stamps whose brightness has a certain remainder."""

    def __init__(self, accepted: int, of: int) -> None:
        self.accepted, self.of = accepted, of
        self.fingerprint = f'{accepted} of {of}'

    def accept(self, images, boxes, labels):
        assert len(images) == len(boxes) == len(labels)
        values = [
            image[round(y1), round(x1), 0]
            for image, (x1, y1, _, _) in zip(images, boxes, strict=True)
        ]
        return np.array([value % self.of < self.accepted for value in values], dtype=bool)


def annotations(report: SynthesisReport) -> dict:
    return json.loads(report.annotation_file.read_text())


def test_every_box_is_there_and_shows_what_was_painted(labelled, tmp_path):
    report = synthesis(labelled).make_or_find(tmp_path)
    content = annotations(report)
    assert [category['name'] for category in content['categories']] == list(labelled.classes)
    assert len(content['images']) == COUNT
    names = {Path(image.path).name: image for image in labelled}
    painted = 0
    for image in content['images']:
        with Image.open(report.image_folder / image['file_name']) as opened:
            assert opened.mode == 'L' and opened.size == (image['width'], image['height'])
            pixels = np.asarray(opened)
        own = [entry for entry in content['annotations'] if entry['image_id'] == image['id']]
        kept = [entry['bbox'] for entry in own if not entry['painted']]
        original = names[image['source']]
        for x, y, width, height in kept:
            assert [x, y, x + width, y + height] in original.boxes.tolist()
        replaced = sum(entry['painted'] == 'repaint' for entry in own)
        assert len(kept) + replaced == len(original.boxes)
        for entry in own:
            if entry['painted']:
                x, y, width, height = (round(value) for value in entry['bbox'])
                assert len(np.unique(pixels[y : y + 1, x : x + 1])) == 1
                painted += 1
    assert painted == report.painted_now > COUNT
    assert sum(counts['regions'] for counts in report.outcomes.values()) == painted


def test_a_finished_cache_is_found(labelled, tmp_path, log):
    first = synthesis(labelled).make_or_find(tmp_path)
    before = contents(first.folder)
    synthesiser = Stamp()
    found = synthesis(labelled, synthesiser).make_or_find(tmp_path)
    assert found.folder == first.folder and not synthesiser.batches and found.painted_now == 0
    assert contents(found.folder) == before
    assert found.outcomes == first.outcomes
    assert log.messages[-1].startswith(f'Synthetic images: found {COUNT} in')


def test_the_batch_size_changes_nothing(labelled, tmp_path):
    one, many = Stamp(), Stamp()
    first = synthesis(labelled, one, batch_size=1).make_or_find(tmp_path / 'one')
    second = synthesis(labelled, many, batch_size=5).make_or_find(tmp_path / 'many')
    assert max(one.batches) == 1 and max(many.batches) == 5
    assert first.folder.name == second.folder.name
    assert contents(first.folder) == contents(second.folder)


def in_another_process(target, *arguments):
    process = multiprocessing.get_context('fork').Process(target=target, args=arguments)
    process.start()
    return process


def test_a_killed_run_is_continued_to_the_same_bytes(labelled, tmp_path, log):
    whole = synthesis(labelled).make_or_find(tmp_path / 'whole')
    slow = synthesis(labelled, Stamp(pause=0.15), batch_size=2)
    process = in_another_process(slow.make_or_find, tmp_path / 'killed')
    folder = tmp_path / 'killed' / whole.folder.name
    draft = draft_of(folder)
    deadline = time.monotonic() + 120
    while len(list(draft.glob('images/*.png'))) < 3:
        assert time.monotonic() < deadline and process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    kept = len(list(draft.glob('images/*.png')))
    assert 3 <= kept < COUNT and not folder.exists(), 'half a cache has not its name'
    # As a process leaves it that is killed while it writes.
    (draft / 'images' / '.000007.png.unfinished').write_bytes(b'half a file')
    report = synthesis(labelled).make_or_find(tmp_path / 'killed')
    assert 0 < report.painted_now < whole.painted_now
    assert any(f'goes on in {folder} with {kept} of {COUNT} there' in m for m in log.messages)
    assert contents(report.folder) == contents(whole.folder)
    assert not draft.exists()


@pytest.mark.parametrize('replaced', [False, True])
def test_a_run_that_was_killed_while_it_put_the_cache_in_place_is_finished(
    labelled, tmp_path, replaced
):
    whole = synthesis(labelled).make_or_find(tmp_path)
    before = contents(whole.folder)
    folder = whole.folder
    draft = draft_of(folder)
    shutil.copytree(folder, draft)
    aside = folder.with_name(f'.{folder.name}.replaced')
    folder.rename(aside)
    if replaced:
        repaint(aside / 'images/000003.png')
    else:
        shutil.rmtree(aside)
    synthesiser = Stamp()
    assert contents(synthesis(labelled, synthesiser).make_or_find(tmp_path).folder) == before
    assert not synthesiser.batches and not draft.exists() and not aside.exists()


def test_what_others_put_into_a_damaged_cache_stays(labelled, tmp_path):
    folder = synthesis(labelled).make_or_find(tmp_path).folder
    before = contents(folder)
    (folder / 'images/notes.txt').write_text('mine')
    (folder / 'images/000001.png').unlink()
    mended = contents(synthesis(labelled).make_or_find(tmp_path).folder)
    assert mended == {**before, 'images/notes.txt': b'mine'}


def test_two_processes_at_once_make_one_cache(labelled, tmp_path):
    results = multiprocessing.get_context('fork').Queue()

    def make():
        report = synthesis(labelled, Stamp(pause=0.1), batch_size=3).make_or_find(tmp_path)
        results.put(report.painted_now)

    processes = [in_another_process(make) for _ in range(2)]
    painted = sorted(results.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    assert painted[0] == 0 < painted[1]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def repaint(path: Path) -> None:
    """A valid image with the same record, but other pixels."""
    from PIL import PngImagePlugin

    with Image.open(path) as image:
        info = PngImagePlugin.PngInfo()
        info.add_text('mmdsym', image.text['mmdsym'])
        pixels = np.asarray(image) ^ 1
    Image.fromarray(pixels).save(path, pnginfo=info)


def change_a_number(path: Path) -> None:
    content = json.loads(path.read_text())
    content['outcomes'] = {}
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ('name', 'damage', 'fault', 'repainted_images'),
    [
        ('images/000003.png', truncate, 'was changed or truncated', 1),
        ('images/000003.png', repaint, 'was changed or truncated', 1),
        ('images/000003.png', Path.unlink, 'is missing', 1),
        ('annotations.json', truncate, 'was changed or truncated', 0),
        ('annotations.json', Path.unlink, 'is missing', 0),
        ('manifest.json', truncate, 'is damaged', 0),
        ('manifest.json', change_a_number, 'is damaged', 0),
    ],
)
def test_damage_is_named_and_mended(labelled, tmp_path, log, name, damage, fault, repainted_images):
    report = synthesis(labelled).make_or_find(tmp_path)
    before = contents(report.folder)
    damage(report.folder / name)
    assert contents(report.folder) != before
    synthesiser = Stamp()
    mended = synthesis(labelled, synthesiser, batch_size=99).make_or_find(tmp_path)
    assert any(f'{name} {fault}' in message for message in log.messages)
    assert contents(mended.folder) == before
    assert max(synthesiser.batches, default=0) == repainted_images


def test_without_its_manifest_a_cache_trusts_only_intact_images(labelled, tmp_path):
    report = synthesis(labelled).make_or_find(tmp_path)
    before = contents(report.folder)
    (report.folder / 'manifest.json').unlink()
    repaint(report.folder / 'images/000001.png')
    (report.folder / 'images/000002.png').write_bytes(before['images/000004.png'])
    truncate(report.folder / 'images/000005.png')
    synthesiser = Stamp()
    mended = synthesis(labelled, synthesiser, batch_size=99).make_or_find(tmp_path)
    assert contents(mended.folder) == before
    assert max(synthesiser.batches) == 3


def test_the_key_holds_all_that_counts_and_nothing_else(labelled, tiny_data, monkeypatch):
    def digest(labelled=labelled, synthesiser=None, **options):
        return synthesis(labelled, synthesiser, **options).key.digest

    first = digest()
    assert digest(read(tiny_data), batch_size=3, max_attempts=9) == first
    assert digest(layout=LayoutConfig(defects_per_image=[1, 3], max_covered=0.5)) == first
    others = [
        digest(synthesiser=Stamp('other weights')),
        digest(layout=LayoutConfig()),
        digest(count=COUNT + 1),
        digest(seed=1),
        digest(accept=Picky(1, 2)),
        digest(accept=Picky(1, 3)),
        digest(accept=Picky(1, 3), max_attempts=5),
    ]
    monkeypatch.setattr(cache_key, 'FORMAT', cache_key.FORMAT + 1)
    others.append(digest())
    assert len({first, *others}) == len(others) + 1


def test_other_labels_and_pixels_give_another_key(labelled, tiny_data, tmp_path):
    copy = tmp_path / 'copy'
    shutil.copytree(tiny_data, copy)
    first = synthesis(labelled).key.digest
    # Where the data lie does not count.
    assert synthesis(read(copy)).key.digest == first
    path = copy / 'annotations/40pct_seed0/labelled.json'
    content = json.loads(path.read_text())
    content['annotations'][0]['note'] = 'not used'
    path.write_text(json.dumps(content))
    assert synthesis(read(copy)).key.digest == first
    content['annotations'][0]['bbox'][2] -= 1
    path.write_text(json.dumps(content))
    assert synthesis(read(copy)).key.digest != first
    shutil.copytree(tiny_data, copy, dirs_exist_ok=True)
    assert synthesis(read(copy)).key.digest == first
    repaint_plain(copy / 'images/000.png')
    assert synthesis(read(copy)).key.digest != first


def repaint_plain(path: Path) -> None:
    with Image.open(path) as image:
        pixels = np.asarray(image) ^ 1
    Image.fromarray(pixels).save(path)


def test_a_sibling_is_named_with_the_reason(labelled, tmp_path, log):
    first = synthesis(labelled).make_or_find(tmp_path)
    before = contents(first.folder)
    second = synthesis(labelled, Stamp('new weights'), seed=1).make_or_find(tmp_path)
    assert second.folder != first.folder and second.folder.parent == first.folder.parent
    line = next(message for message in log.messages if 'is not used' in message)
    assert f'{first.folder.name} is not used, since it has other seed, synthesiser' in line
    assert contents(first.folder) == before


def test_a_full_disk_is_told_and_leaves_no_half_file(labelled, tmp_path, monkeypatch):
    calls = []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', fsync)
    with pytest.raises(UserError, match='no space is left for .*another disk, then start again'):
        synthesis(labelled).make_or_find(tmp_path)
    files = [path.name for path in tmp_path.rglob('*') if path.is_file()]
    assert sum(name.endswith('.png') for name in files) == 3
    assert not any('unfinished' in name for name in files)
    monkeypatch.undo()
    report = synthesis(labelled).make_or_find(tmp_path)
    whole = synthesis(labelled).make_or_find(tmp_path / 'whole')
    assert contents(report.folder) == contents(whole.folder)


def test_a_folder_that_cannot_be_written_is_named(labelled, tmp_path):
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(UserError, match='file'):
        synthesis(labelled).make_or_find(tmp_path / 'file')


def test_what_is_always_rejected_is_left_out_or_left_alone(labelled, tmp_path, log):
    synthesiser = Stamp()
    painter = synthesis(labelled, synthesiser, accept=Picky(0, 2), max_attempts=2, batch_size=99)
    report = painter.make_or_find(tmp_path)
    content = annotations(report)
    names = {Path(image.path).name: image for image in labelled}
    for image in content['images']:
        own = [entry for entry in content['annotations'] if entry['image_id'] == image['id']]
        assert [entry['painted'] for entry in own] == [None] * len(own)
        assert len(own) == len(names[image['source']].boxes)
        path = Path(names[image['source']].path)
        with Image.open(report.image_folder / image['file_name']) as new, Image.open(path) as old:
            assert np.array_equal(np.asarray(new), np.asarray(old))
    for counts in report.outcomes.values():
        assert counts['given_up'] == counts['regions']
        assert counts['rejected'] == counts['attempts'] == 2 * counts['regions']
    assert report.rejected_share == 1
    assert 'Rejected attempts: 100.0%' in log.messages[-2]


@pytest.mark.parametrize(('max_attempts', 'lost'), [(1, True), (9, False)])
def test_classes_that_lose_many_regions_are_counted(labelled, tmp_path, log, max_attempts, lost):
    for _ in range(2):
        picky = synthesis(labelled, accept=Picky(1, 2), max_attempts=max_attempts)
        report = picky.make_or_find(tmp_path)
        warnings = [r.getMessage() for r in log.records if r.levelno == logging.WARNING]
        log.clear()
        assert len(warnings) == lost, 'also where the cache is found'
        for name, counts in report.outcomes.items() if lost else ():
            assert counts['given_up'] > 0.2 * counts['regions']
            assert f'{name} {counts["given_up"]} of {counts["regions"]}' in warnings[0]
        if lost:
            given_up, regions = (
                sum(counts[key] for counts in report.outcomes.values())
                for key in ('given_up', 'regions')
            )
            assert f'for {given_up} of {regions} regions no attempt was accepted' in warnings[0]
            assert 'stayed as it was' in warnings[0] and 'raise max_attempts' in warnings[0]
            assert '\n' not in warnings[0]


def test_rejected_regions_are_painted_anew(labelled, tmp_path):
    alone = synthesis(labelled, accept=Picky(1, 2), max_attempts=4, batch_size=1)
    first = alone.make_or_find(tmp_path / 'one')
    together = synthesis(labelled, accept=Picky(1, 2), max_attempts=4, batch_size=7)
    second = together.make_or_find(tmp_path / 'many')
    assert contents(first.folder) == contents(second.folder)
    manifest = json.loads((first.folder / 'manifest.json').read_text())
    assert manifest['outcomes'] == first.outcomes
    assert 0.2 < first.rejected_share < 0.8
    for entry in annotations(first)['annotations']:
        if entry['painted'] == 'add':
            x, y = (round(value) for value in entry['bbox'][:2])
            name = f'{entry["image_id"] - 1:06d}.png'
            with Image.open(first.image_folder / name) as image:
                assert np.asarray(image)[y, x] % 2 == 0


def test_colour_is_kept(tmp_path):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'colour.png')
    content = dict(
        categories=[dict(id=1, name='dent')],
        images=[dict(id=1, file_name='colour.png', width=40, height=40)],
        annotations=[dict(id=1, image_id=1, category_id=1, bbox=[4, 4, 9, 9], area=81, iscrowd=0)],
    )
    (tmp_path / 'colour.json').write_text(json.dumps(content))
    init_default_scope('mmdet')
    labelled = read_labelled_images(
        dict(
            type='mmdsym.DefectDataset',
            ann_file=str(tmp_path / 'colour.json'),
            data_prefix=dict(img=f'{tmp_path}/'),
        )
    )
    assert np.array_equal(labelled.pixels(0), pixels)
    report = synthesis(labelled, count=1, accept=Picky(0, 1)).make_or_find(tmp_path / 'cache')
    with Image.open(report.image_folder / '000000.png') as image:
        assert np.array_equal(np.asarray(image), pixels)


def test_an_image_of_another_size_than_its_annotation_is_named(tiny_data, tmp_path):
    copy = tmp_path / 'copy'
    shutil.copytree(tiny_data, copy)
    Image.new('L', (10, 10)).save(copy / 'images/000.png')
    with pytest.raises(UserError, match='has 10x10 pixels, but its annotation says 64x64'):
        read(copy).pixels(0)


@pytest.mark.parametrize('option', ['count', 'max_attempts', 'batch_size'])
def test_wrong_numbers_are_named(labelled, option):
    with pytest.raises(UserError, match=f'{option} of the synthetic images is 0'):
        synthesis(labelled, **{option: 0})
