"""A small conditional diffusion model that paints defects, sized for a CPU."""

channels = 1
crop_size = 160
patch_size = 5

model = dict(
    type='mmdsym.DefectInpaintingDiffusion',
    num_classes=None,
    denoiser=dict(
        crop_size=crop_size,
        channels=channels,
        patch_size=patch_size,
        unet=dict(
            block_out_channels=(64, 128, 192),
            layers_per_block=1,
            down_block_types=('DownBlock2D', 'DownBlock2D', 'AttnDownBlock2D'),
            up_block_types=('AttnUpBlock2D', 'UpBlock2D', 'UpBlock2D'),
            attention_head_dim=32,
            norm_num_groups=16,
        ),
    ),
    # sigma_data is the deviation of the surface's grain, not of whole defects (0.3 on NEU-DET): at
    # higher noise the network then predicts the picture itself. To predict the noise, it would have
    # to carry each pixel of it through cells of far fewer channels (arXiv 2511.13720).
    noise_schedule=dict(sigma_min=0.005, sigma_max=20.0, sigma_data=0.1, prediction_type='epsilon'),
    # A defect as large as the window shows through noise many times its contrast: where it lies and
    # how it runs is decided at levels of 2 to 20.
    noise_levels=dict(mean=-0.4, std=1.7),
    pixel_std=0.3,
    data_preprocessor=dict(type='BaseDataPreprocessor'),
)

load = [
    dict(type='mmdsym.LoadCachedImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
]
orientation = [
    dict(
        type='RandomFlip',
        prob=[0.25, 0.25, 0.25],
        direction=['horizontal', 'vertical', 'diagonal'],
    ),
    dict(type='mmdsym.RandomTranspose', prob=0.5),
]
region = dict(type='mmdsym.CropDefectRegion', crop_size=crop_size, channels=channels)

train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmdsym.DefectDataset',
        ann_file='{data_root}annotations/{split}/burn_in.json',
        data_prefix=dict(img='{data_root}images/'),
        pipeline=[*load, *orientation, region],
    ),
)
# Held-out labelled images; validation images of the data set are not read.
val_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmdsym.DefectDataset',
        ann_file='{data_root}annotations/{split}/calibration.json',
        data_prefix=dict(img='{data_root}images/'),
        test_mode=True,
        pipeline=[*load, {**region, 'fixed': True}],
    ),
)
val_evaluator = dict(type='mmdsym.DiffusionLossMetric')

custom_hooks = [
    dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.002, gamma=200),
    # What is drawn follows from the iteration: an interrupted training ends like a whole one.
    dict(type='mmdsym.IterationSeedHook'),
    dict(type='mmdsym.SampleSheetHook'),
    dict(type='mmdsym.DiffusionExportHook', folder='{data_root}diffusion/{split}'),
]
