"""The Stable-Diffusion synthesiser, with a tiny pipeline of random weights built here."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from mmengine.config import Config
from preparation_data import NEU_CLASSES

from mmdsym.diffusion import inpainting_pipeline
from mmdsym.diffusion.building import build_part
from mmdsym.diffusion.stable_diffusion import StableDiffusionSynthesiser, prompts_of_classes
from mmdsym.diffusion.synthesiser import CLEAN_SURFACE, PaintingTask, repaint_region
from mmdsym.errors import UserError
from mmdsym.registry import SYNTHESISERS

CLASSES = ('dent', 'spot')


@pytest.fixture(scope='session')
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip('transformers')
    import diffusers

    folder = tmp_path_factory.mktemp('pipeline')
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=9,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=('DownBlock2D', 'CrossAttnDownBlock2D'),
        up_block_types=('CrossAttnUpBlock2D', 'UpBlock2D'),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=('DownEncoderBlock2D',) * 2,
        up_block_types=('UpDecoderBlock2D',) * 2,
        norm_num_groups=4,
        latent_channels=4,
    )
    text_encoder = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=80,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=77,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    pipeline = diffusers.StableDiffusionInpaintPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tiny_tokenizer(folder),
        unet=unet,
        scheduler=diffusers.PNDMScheduler(skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder / 'tiny', safe_serialization=True)
    return folder / 'tiny'


def tiny_tokenizer(folder: Path):
    from transformers import CLIPTokenizer

    letters = 'abcdefghijklmnopqrstuvwxyz'
    tokens = ['<|startoftext|>', '<|endoftext|>', *letters, *(f'{c}</w>' for c in letters)]
    vocabulary, merges = folder / 'vocab.json', folder / 'merges.txt'
    vocabulary.write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    merges.write_text('#version: 0.2\n')
    (folder / 'tokenizer_config.json').write_text(json.dumps({'model_max_length': 77}))
    return CLIPTokenizer.from_pretrained(folder)


@pytest.fixture
def synthesiser(pipeline_folder: Path) -> StableDiffusionSynthesiser:
    return make(pipeline_folder)


def make(folder: Path, **settings) -> StableDiffusionSynthesiser:
    settings = dict(num_steps=4, resolution=32, batch_size=2, device='cpu') | settings
    return SYNTHESISERS.build(
        dict(
            type='mmdsym.StableDiffusionSynthesiser',
            model=str(folder),
            classes=CLASSES,
            **settings,
        )
    )


def tasks(grey: bool = False) -> list[PaintingTask]:
    generator = np.random.default_rng(0)
    image = generator.integers(80, 160, (60, 90, 3), dtype=np.uint8)
    if grey:
        image = np.repeat(image[..., :1], 3, axis=2)
    reference = generator.integers(0, 60, (9, 14, 3), dtype=np.uint8)
    return [
        PaintingTask(image, (10, 12, 30, 40), 0, seed=1),
        PaintingTask(image, (0, 0, 90, 60), 1, seed=2),
        PaintingTask(image, (70.5, 20.2, 71, 21), 1, seed=3),
        PaintingTask(image, (40, 30, 80, 55), 0, seed=4, reference=reference, strength=0.3),
        PaintingTask(image, (40, 5, 60, 25), CLEAN_SURFACE, seed=5),
    ]


def test_only_the_region_changes(synthesiser: StableDiffusionSynthesiser):
    for task, painted in zip(tasks(), synthesiser.paint(tasks()), strict=True):
        left, top, right, bottom = repaint_region(task.box, (90, 60))
        outside = np.ones((60, 90), bool)
        outside[top:bottom, left:right] = False
        assert painted.dtype == np.uint8
        assert np.array_equal(painted[outside], task.image[outside])
        assert not np.array_equal(painted, task.image)


def test_a_task_is_painted_alike_whatever_stands_beside_it(
    synthesiser: StableDiffusionSynthesiser, pipeline_folder: Path
):
    together = synthesiser.paint(tasks())
    anew = make(pipeline_folder)
    for task, painted in reversed(list(zip(tasks(), together, strict=True))):
        assert np.array_equal(anew.paint([task])[0], painted)


def test_seed_and_prompt_count(synthesiser: StableDiffusionSynthesiser):
    first = tasks()[0]
    variants = [first, replace(first, seed=9), replace(first, label=1)]
    one, other_seed, other_class = synthesiser.paint(variants)
    assert not np.array_equal(one, other_seed)
    assert not np.array_equal(one, other_class)


def test_the_reference_counts_unless_strength_is_full(synthesiser: StableDiffusionSynthesiser):
    task = tasks()[3]
    other = replace(task, reference=255 - task.reference)
    weak, weak_other = synthesiser.paint([task, other])
    assert not np.array_equal(weak, weak_other)
    full, full_other = synthesiser.paint(
        [replace(task, strength=1.0), replace(other, strength=1.0)]
    )
    # The pipeline shows the network the masked image, in which the reference is hidden.
    assert np.array_equal(full, full_other)


def test_grey_images_stay_grey(synthesiser: StableDiffusionSynthesiser):
    for painted in synthesiser.paint(tasks(grey=True)):
        assert (painted == painted[..., :1]).all()


def test_the_fingerprint_follows_weights_and_settings(pipeline_folder: Path, tmp_path: Path):
    copy = tmp_path / 'elsewhere'
    shutil.copytree(pipeline_folder, copy)
    first = make(pipeline_folder).fingerprint
    assert make(copy).fingerprint == first
    assert make(copy, prompts=dict(dent='a dent', spot='a spot')).fingerprint != first
    assert make(copy, num_steps=5).fingerprint != first
    weights = next((copy / 'unet').glob('*.safetensors'))
    weights.write_bytes(weights.read_bytes()[:-1] + b'\1')
    assert make(copy).fingerprint != first


def test_missing_parts_are_named_at_once(pipeline_folder: Path, tmp_path: Path):
    copy = tmp_path / 'broken'
    shutil.copytree(pipeline_folder, copy)
    next((copy / 'vae').glob('*.safetensors')).rename(copy / 'vae' / 'model.bin')
    with pytest.raises(UserError, match='no weights as .safetensors'):
        make(copy)
    shutil.rmtree(copy / 'vae')
    with pytest.raises(UserError, match='lacks the part vae'):
        make(copy)
    (copy / 'model_index.json').write_text('[')
    with pytest.raises(UserError, match='cannot be read'):
        make(copy)
    (copy / 'model_index.json').unlink()
    with pytest.raises(UserError, match='has no model_index.json'):
        make(copy)


@pytest.mark.parametrize(
    ('unet', 'code', 'message'),
    [
        (['diffusers', 'UNet2DConditionModel'], 'unet/diffusers.py', 'never run'),
        (['diffusers', 'UNet2DConditionModel'], 'pipeline.py', 'never run'),
        (['subprocess', 'Popen'], None, "unet of .* comes from 'subprocess'"),
    ],
)
def test_a_pipeline_brings_no_code(tmp_path: Path, unet: list, code: str | None, message: str):
    index = dict(_class_name='StableDiffusionInpaintPipeline', unet=unet)
    (tmp_path / 'unet').mkdir()
    (tmp_path / 'unet/model.safetensors').touch()
    (tmp_path / 'model_index.json').write_text(json.dumps(index))
    if code is not None:
        inpainting_pipeline.check_pipeline(str(tmp_path), None)
        (tmp_path / code).write_text('raise SystemExit')
    with pytest.raises(UserError, match=message):
        inpainting_pipeline.check_pipeline(str(tmp_path), None)


def test_damaged_weights_are_named(pipeline_folder: Path, tmp_path: Path):
    copy = tmp_path / 'damaged'
    shutil.copytree(pipeline_folder, copy)
    weights = next((copy / 'unet').glob('*.safetensors'))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match='cannot be loaded .* again'):
        make(copy).paint(tasks()[:1])


@pytest.mark.parametrize(
    ('model', 'revision', 'message'),
    [
        ('/nowhere/at/all', None, 'there is no folder'),
        ('owner/name', None, 'set revision'),
    ],
)
def test_a_missing_model_is_named_at_once(
    monkeypatch: pytest.MonkeyPatch, model: str, revision: str | None, message: str
):
    monkeypatch.setattr('mmdsym.diffusion.stable_diffusion.require_transformers', lambda: None)
    with pytest.raises(UserError, match=message):
        make(model, revision=revision)


def test_an_unreachable_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip('transformers')
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    synthesiser = make('owner/name-that-nobody-has', revision='0' * 40)
    with pytest.raises(UserError, match='cannot be loaded .* machine with network'):
        synthesiser.paint(tasks()[:1])


def test_without_transformers_the_package_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inpainting_pipeline.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match='pip install .transformers'):
        make('owner/name', revision='0' * 40)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(resolution=100), 'multiple of 8'),
        (dict(num_steps=0), 'num_steps'),
        (dict(batch_size=0), 'batch_size'),
        (dict(dtype='int8'), 'dtype'),
        (dict(prompts=dict(dent='a dent')), 'prompts say nothing of spot'),
        (dict(prompts=dict(dent='a', spot='b', dents='c')), "did you mean 'dent'"),
    ],
)
def test_wrong_settings_are_named(settings: dict, message: str):
    with pytest.raises(UserError, match=message):
        make('owner/name', revision='0' * 40, **settings)


def test_prompts_follow_the_order_of_the_classes():
    given = dict(spot='a spot', dent='a dent')
    assert prompts_of_classes(CLASSES, given) == ['a dent', 'a spot']
    assert 'rolled in scale' in prompts_of_classes(['rolled-in_scale'], None)[0]
    with pytest.raises(UserError, match='no classes'):
        prompts_of_classes((), None)


def builds(monkeypatch: pytest.MonkeyPatch, name: str, classes) -> StableDiffusionSynthesiser:
    """Builds the synthesiser of a config, whose weights are not asked for."""
    for check in ('require_transformers', 'check_pipeline'):
        monkeypatch.setattr(f'mmdsym.diffusion.stable_diffusion.{check}', lambda *_: None)
    path = REPOSITORY / f'configs/_base_/datasets/{name}.py'
    return build_part(SYNTHESISERS, Config.fromfile(path).synthesiser, classes)


def test_the_config_fits_any_classes(monkeypatch: pytest.MonkeyPatch):
    for classes in (CLASSES, ('torn_seam',)):
        built = builds(monkeypatch, 'synthetic_stable_diffusion', classes)
        assert built.prompts == prompts_of_classes(classes, None)


def test_the_config_for_neu_has_words_for_its_classes(monkeypatch: pytest.MonkeyPatch):
    built = builds(monkeypatch, 'synthetic_stable_diffusion_neu', NEU_CLASSES)
    assert len(set(built.prompts)) == len(NEU_CLASSES)
    assert all('steel' in prompt for prompt in built.prompts)
    with pytest.raises(UserError, match='no class of the data: they are dent, spot'):
        builds(monkeypatch, 'synthetic_stable_diffusion_neu', CLASSES)


def test_the_config_names_missing_weights(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr('mmdsym.diffusion.stable_diffusion.require_transformers', lambda: None)
    path = REPOSITORY / 'configs/_base_/datasets/synthetic_stable_diffusion.py'
    with pytest.raises(UserError, match='weights/stable-diffusion-inpainting'):
        build_part(SYNTHESISERS, Config.fromfile(path).synthesiser, CLASSES)
