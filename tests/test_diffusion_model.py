import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.runner import Runner

from mmdsym import atomic_folder
from mmdsym.diffusion import (
    DefectInpaintingDiffusion,
    DiffusionSynthesiser,
    SampleSheetHook,
    sample_sheet_hook,
)
from mmdsym.diffusion.denoiser import PatchDenoiser
from mmdsym.diffusion.region_batch import to_batch, to_pixels
from mmdsym.diffusion.sampling import noise_of, sample_regions
from mmdsym.diffusion.synthesiser import CLEAN_SURFACE, PaintingTask, repaint_region
from mmdsym.diffusion.weights import (
    DiffusionDescription,
    load_diffusion,
    save_diffusion,
)
from mmdsym.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
UNET = dict(
    block_out_channels=(16, 32),
    layers_per_block=1,
    down_block_types=('DownBlock2D', 'AttnDownBlock2D'),
    up_block_types=('AttnUpBlock2D', 'UpBlock2D'),
    attention_head_dim=16,
    norm_num_groups=8,
)
SCHEDULE = dict(sigma_min=0.01, sigma_max=10.0, sigma_data=0.4, prediction_type='epsilon')
LEVELS = dict(mean=-1.0, std=1.2)


def tiny_model(channels=1, **options) -> DefectInpaintingDiffusion:
    torch.manual_seed(0)
    denoiser = dict(crop_size=32, channels=channels, patch_size=4, unet=UNET)
    options = {'noise_schedule': SCHEDULE, 'noise_levels': LEVELS, **options}
    return DefectInpaintingDiffusion(num_classes=2, denoiser=denoiser, **options)


def batch(channels=1, count=4):
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (count, channels, 32, 32), generator=generator).byte()
    region = torch.zeros(count, 1, 32, 32, dtype=torch.uint8)
    region[..., 8:24, 8:24] = 255
    box = torch.zeros_like(region)
    box[..., 10:22, 10:22] = 255
    label = torch.tensor([0, 1, CLEAN_SURFACE, 0])[:count]
    return dict(image=image, region=region, box=box, label=label)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp('diffusion') / 'weights'
    model = tiny_model()
    about = DiffusionDescription(('dent', 'spot'), 1, 32, 4, 16, (1.2, 2.5))
    save_diffusion(place, model.denoiser.unet, model.scheduler, about)
    return place


@pytest.mark.parametrize('kind', ['v_prediction', 'epsilon'])
@pytest.mark.parametrize('channels', [1, 3])
def test_every_prediction_type_learns(kind, channels):
    schedule = {**SCHEDULE, 'prediction_type': kind}
    model = tiny_model(channels, noise_schedule=schedule)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    data = batch(channels)
    before = np.mean([sample['loss'] for sample in model(**data, mode='predict')])
    for _ in range(12):
        loss = model(**data, mode='loss')['loss']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = np.mean([sample['loss'] for sample in model(**data, mode='predict')])
    assert np.isfinite(after) and after < before


def test_losses_weigh_alike_at_all_noise_levels():
    model = tiny_model(pixel_std=0.4)
    levels = torch.tensor([0.01, 0.4, 8.0])
    assert torch.allclose(model._level_weight(levels), torch.ones(3))
    model = tiny_model(pixel_std=0.8)
    fine, coarse = model._level_weight(torch.tensor([0.01, 8.0]))
    assert coarse < 0.3 < 0.9 < fine <= 1


def test_validation_losses_depend_on_the_model_alone():
    model, data = tiny_model(), batch()
    assert model(**data, mode='predict') == model(**data, mode='predict')
    assert [sample['label'] for sample in model(**data, mode='predict')] == [0, 1, -1, 0]


def test_the_class_is_dropped_in_its_share_and_clean_surface_has_a_place_of_its_own():
    model = tiny_model(drop_class=1.0)
    seen = []
    model.denoiser.unet.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs['class_labels']), with_kwargs=True
    )
    model(**batch(), mode='loss')
    assert seen[0].tolist() == [3, 3, 3, 3]
    model.drop_class = 0.0
    model(**batch(), mode='loss')
    assert seen[1].tolist() == [0, 1, 2, 0]


def test_what_lies_in_the_region_is_hidden_from_the_network():
    model, data = tiny_model(), batch()
    known = []
    model.denoiser.register_forward_pre_hook(lambda module, args: known.append(args[1]))
    model(**data, mode='predict')
    assert known[0][..., 8:24, 8:24].abs().max() == 0
    assert known[0][..., :8, :].abs().max() > 0


def test_a_crop_that_cannot_be_halved_is_refused():
    with pytest.raises(UserError, match='multiple of patch_size'):
        PatchDenoiser(2, crop_size=36, channels=1, patch_size=4, unet=UNET)


def test_sampling_leaves_the_surroundings_alone_and_stays_in_range():
    model, data = tiny_model().eval(), batch()
    given = to_batch(data['image'], data['region'], data['box'])
    noise = torch.stack([noise_of(seed, (1, 32, 32)) for seed in range(4)])
    scheduler = model.scheduler
    classes = model.denoiser.class_index(data['label'])
    painted = sample_regions(model.denoiser, scheduler, given, classes, noise, num_steps=4)
    outside = given.region == 0
    assert torch.equal(painted[outside], given.image[outside])
    assert painted.isfinite().all()
    pixels = to_pixels(painted, given.brightness)
    assert torch.equal(pixels[outside], data['image'][outside])


def test_a_start_near_the_picture_stays_near_it():
    model, data = tiny_model().eval(), batch()
    given = to_batch(data['image'], data['region'], data['box'])
    noise = torch.stack([noise_of(seed, (1, 32, 32)) for seed in range(4)])
    scheduler = model.scheduler
    classes = model.denoiser.class_index(data['label'])

    def distance(start):
        painted = sample_regions(
            model.denoiser, scheduler, given, classes, noise, num_steps=20, start=start
        )
        return (painted - given.image).abs().mean()

    assert distance(0.05) < distance(0.5) < distance(1.0)


def test_guidance_takes_two_looks():
    model, data = tiny_model().eval(), batch()
    given = to_batch(data['image'], data['region'], data['box'])
    noise = torch.stack([noise_of(seed, (1, 32, 32)) for seed in range(4)])
    calls = []
    model.denoiser.register_forward_pre_hook(lambda module, args: calls.append(args[4].tolist()))
    sample_regions(
        model.denoiser,
        model.scheduler,
        given,
        torch.tensor([0, 1, 2, 0]),
        noise,
        num_steps=2,
        guidance=2.0,
    )
    assert calls == [[0, 1, 2, 0], [3, 3, 3, 3]] * 2


def tasks(count, size=48):
    generator = np.random.default_rng(3)
    made = []
    for index in range(count):
        image = generator.integers(0, 256, (size, size, 1), dtype=np.uint8).repeat(3, axis=2)
        corner = generator.uniform(0, size - 20, 2)
        box = (*corner, *(corner + generator.uniform(4, 20, 2)))
        reference = image[:9, :7] if index % 3 == 0 else None
        label = (0, 1, CLEAN_SURFACE)[index % 3]
        made.append(PaintingTask(image, box, label, index, reference, 0.5 if index % 2 else 1.0))
    return made


def test_a_task_is_painted_alike_whatever_stands_beside_it(folder):
    synthesiser = DiffusionSynthesiser(str(folder), num_steps=4, batch_size=4)
    everything = tasks(7)
    together = synthesiser.paint(everything)
    backwards = synthesiser.paint(everything[::-1])[::-1]
    alone = [synthesiser.paint([task])[0] for task in everything]
    for one, two, three in zip(together, backwards, alone, strict=True):
        assert np.array_equal(one, two) and np.array_equal(one, three)


def test_outside_the_region_not_one_pixel_changes(folder):
    synthesiser = DiffusionSynthesiser(str(folder), num_steps=2, batch_size=4)
    for task, painted in zip(tasks(6), synthesiser.paint(tasks(6)), strict=True):
        assert painted.shape == task.image.shape and painted.dtype == np.uint8
        left, top, right, bottom = repaint_region(task.box, task.image.shape[1::-1])
        assert not np.array_equal(painted, task.image)
        painted[top:bottom, left:right] = task.image[top:bottom, left:right]
        assert np.array_equal(painted, task.image)


@pytest.mark.parametrize('box', [(3, 3, 4, 4), (0, 0, 48, 48), (0, 20, 48, 22)])
def test_tiny_and_huge_boxes_are_painted(folder, box):
    synthesiser = DiffusionSynthesiser(str(folder), num_steps=2)
    task = PaintingTask(np.full((48, 48, 3), 128, np.uint8), box, 0, 0)
    assert not np.array_equal(synthesiser.paint([task])[0], task.image)


def test_a_wide_image_is_painted(folder):
    synthesiser = DiffusionSynthesiser(str(folder), num_steps=2)
    task = PaintingTask(np.full((20, 90, 3), 128, np.uint8), (10, 4, 85, 12), 1, 0)
    assert synthesiser.paint([task])[0].shape == (20, 90, 3)


def test_the_fingerprint_follows_weights_and_settings(folder, tmp_path):
    first = DiffusionSynthesiser(str(folder), num_steps=4)
    assert first.fingerprint == DiffusionSynthesiser(str(folder), num_steps=4).fingerprint
    assert first.fingerprint != DiffusionSynthesiser(str(folder), num_steps=5).fingerprint
    for name in ('.DS_Store', 'notes.txt', 'unet/Thumbs.db', 'deeper/more.json'):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text('not of the model')
    assert first.fingerprint == DiffusionSynthesiser(str(folder), num_steps=4).fingerprint
    model = tiny_model()
    with torch.no_grad():
        model.denoiser.unet.conv_in.bias += 1
    about = DiffusionDescription(('dent', 'spot'), 1, 32, 4, 16, (1.2, 2.5))
    save_diffusion(tmp_path / 'other', model.denoiser.unet, model.scheduler, about)
    other = DiffusionSynthesiser(str(tmp_path / 'other'), num_steps=4)
    assert other.fingerprint != first.fingerprint


def test_what_was_saved_is_loaded(folder):
    unet, scheduler, about = load_diffusion(folder)
    assert about.classes == ('dent', 'spot') and about.contexts == (1.2, 2.5)
    model = tiny_model()
    expected = model.denoiser.unet.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in unet.state_dict().items())
    assert scheduler.config.algorithm_type == 'dpmsolver++'
    assert scheduler.config.sigma_data == 0.4


def test_missing_damaged_and_foreign_weights_are_named(folder, tmp_path):
    with pytest.raises(UserError, match='no diffusion model in .*nowhere'):
        DiffusionSynthesiser(str(tmp_path / 'nowhere'))
    with pytest.raises(UserError, match='train it on these data'):
        DiffusionSynthesiser(str(folder), classes=('dent', 'scratch'))
    model = tiny_model()
    about = DiffusionDescription(('dent', 'spot'), 1, 32, 4, 16, (1.2, 2.5))
    broken = tmp_path / 'broken'
    save_diffusion(broken, model.denoiser.unet, model.scheduler, about)
    weights = next((broken / 'unet').glob('*.safetensors'))
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(UserError, match='damaged'):
        DiffusionSynthesiser(str(broken))


def save(place: Path, bias: float = 0.0) -> None:
    model = tiny_model()
    model.denoiser.unet.conv_in.bias.data.fill_(bias)
    about = DiffusionDescription(('dent', 'spot'), 1, 32, 4, 16, (1.2, 2.5))
    save_diffusion(place, model.denoiser.unet, model.scheduler, about)


def bias_of(place: Path) -> float:
    return load_diffusion(place)[0].conv_in.bias[0].item()


def killed(*_, **__):
    raise KeyboardInterrupt


def test_a_model_is_replaced_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    place = tmp_path / 'weights'
    save(place, 1.0)
    # As after a power cut: another process's files that nobody finished.
    (tmp_path / '.weights.unfinished/unet').mkdir(parents=True)
    (tmp_path / '.weights.unfinished/mmdsym.json').write_text('{}')
    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', lambda _: (_ for _ in ()).throw(OSError(28, 'no space')))
        with pytest.raises(UserError, match='cannot be written to .*weights .*no space.*--resume'):
            save(place, 2.0)
    assert bias_of(place) == 1.0 and list(tmp_path.iterdir()) == [place]
    save(place, 2.0)
    assert bias_of(place) == 2.0 and list(tmp_path.iterdir()) == [place]


def test_a_model_that_was_aside_when_the_process_was_killed_comes_back(tmp_path, monkeypatch):
    place = tmp_path / 'weights'
    save(place, 1.0)
    # Killed between the two renames, and not even able to clear up.
    os.replace(place, tmp_path / '.weights.replaced')
    with monkeypatch.context() as patch:
        patch.setattr(atomic_folder, 'put_in_place', killed)
        with pytest.raises(KeyboardInterrupt):
            save(place, 2.0)
    assert bias_of(place) == 1.0 and list(tmp_path.iterdir()) == [place]


def test_files_and_names_are_on_the_disk_before_a_model_gets_its_name(tmp_path, monkeypatch):
    events = []
    replace, fsync = os.replace, os.fsync
    synced = set()

    def note_sync(descriptor):
        synced.add(Path(os.readlink(f'/proc/self/fd/{descriptor}')).name)
        fsync(descriptor)

    def note_replace(source, target):
        events.append(set(synced))
        replace(source, target)

    monkeypatch.setattr(os, 'fsync', note_sync)
    monkeypatch.setattr(os, 'replace', note_replace)
    save(tmp_path / 'weights')
    assert {'mmdsym.json', 'diffusion_pytorch_model.safetensors', 'unet'} <= events[-1]


def write_tiny_config(path: Path, data: Path) -> None:
    cfg = Config.fromfile(REPOSITORY / 'configs/diffusion/defect_inpaint_neu_40pct.py')
    cfg.merge_from_dict(
        {
            'data_root': f'{data}/',
            'model.denoiser': dict(crop_size=32, patch_size=4, channels=1, unet=UNET),
            'train_cfg': dict(max_iters=6, val_interval=3),
            'train_dataloader': dict(batch_size=2, num_workers=0, persistent_workers=False),
            'default_hooks': dict(checkpoint=dict(interval=3), logger=dict(interval=1)),
            'param_scheduler': [dict(type='ConstantLR', factor=1.0, by_epoch=False)],
        }
    )
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.pipeline[-1].update(crop_size=32, min_side=16)
    hooks = {hook.type: hook for hook in cfg.custom_hooks}
    hooks['mmdsym.SampleSheetHook'].update(num_steps=2, per_class=1)
    hooks['mmdsym.DiffusionExportHook'].folder = str(path.parent / 'weights')
    cfg.dump(path)


def train(config: Path, *options: str) -> None:
    tool = REPOSITORY / 'tools/train.py'
    command = [sys.executable, tool, config, '--work-dir', config.parent / 'run', *options]
    subprocess.run(command, check=True, capture_output=True, cwd=REPOSITORY, timeout=300)


def scalars(run: Path) -> list[dict]:
    lines = [
        json.loads(line)
        for log in sorted(run.glob('*/vis_data/scalars.json'))
        for line in log.read_text().splitlines()
    ]
    return [line for line in lines if 'diffusion/loss' in line]


def test_it_trains_validates_draws_exports_and_resumes(tiny_data, tmp_path):
    write_tiny_config(tmp_path / 'tiny.py', tiny_data)
    train(tmp_path / 'tiny.py', '--cfg-options', 'train_cfg.max_iters=3')
    train(tmp_path / 'tiny.py', '--resume')
    run = tmp_path / 'run'
    assert [line['step'] for line in scalars(run)] == [3, 6]
    assert len(list(run.glob('*/vis_data/vis_image/diffusion_samples_*.png'))) == 2
    synthesiser = DiffusionSynthesiser(str(tmp_path / 'weights'), num_steps=2)
    assert synthesiser.about.classes == ('dent', 'spot')
    checkpoint = torch.load(run / 'iter_6.pth', weights_only=True)
    # MMEngine's EMAHook swaps before it saves: the state that is saved is the averaged one.
    averaged = checkpoint['state_dict']['denoiser.unet.conv_in.weight']
    assert torch.equal(synthesiser.denoiser.unet.conv_in.weight.cpu(), averaged)


class Recorder:
    """Stands for the visualizer."""

    def __init__(self):
        self.sheets = []

    def add_image(self, name, image, step):
        self.sheets.append(image)


@pytest.mark.parametrize('declared_first', ['ema', 'sheet'])
def test_the_sheet_shows_what_the_averaged_weights_paint(monkeypatch, declared_first):
    model = tiny_model()
    sheet, ema = SampleSheetHook(), EMAHook()
    runner = SimpleNamespace(model=model, iter=0, visualizer=Recorder(), val_dataloader=Mock())
    runner.val_dataloader.dataset.metainfo = dict(classes=('dent', 'spot'))
    runner._hooks = []
    for hook in (ema, sheet) if declared_first == 'ema' else (sheet, ema):
        Runner.register_hook(runner, hook)
    ema.before_run(runner)
    raw, averaged = torch.tensor(1.0), torch.tensor(2.0)
    bias = model.denoiser.unet.conv_in.bias
    bias.data.fill_(raw)
    ema.ema_model.module.denoiser.unet.conv_in.bias.data.fill_(averaged)
    seen = []
    monkeypatch.setattr(sheet, '_choose', lambda dataset: [])

    def paint(model, regions):
        seen.append(model.denoiser.unet.conv_in.bias[0].item())
        return []

    monkeypatch.setattr(sheet, '_paint', paint)
    monkeypatch.setattr(sample_sheet_hook, 'compose_sheet', lambda *_, **__: np.zeros((2, 2, 3)))
    Runner.call_hook(runner, 'before_val_epoch')
    Runner.call_hook(runner, 'after_val_epoch', metrics={})
    assert seen == [averaged] and bias[0] == raw
