"""NEU-DET on GPUs: Faster R-CNN on ResNet-50, three seeds, 10 to 100 % of the labels."""

_base_ = 'neu_cpu.py'

fractions = [0.1, 0.2, 0.4, 1.0]
seeds = [0, 1, 2]
methods = dict(
    _delete_=True,
    supervised=dict(config='faster_rcnn_r50/supervised.py'),
    soft_teacher=dict(config='faster_rcnn_r50/soft_teacher.py'),
    dsym=dict(config='faster_rcnn_r50/dsym.py'),
    dsym_without_diffusion=dict(
        config='faster_rcnn_r50/dsym.py',
        options={
            'train_dataloader.dataset.sources.synthetic': None,
            'train_cfg.stages.burn_in.images.synthetic': 0,
            'train_cfg.stages.joint.images.synthetic': 0,
            'train_cfg.stages.refine.images.synthetic': 0,
        },
    ),
    dsym_without_clip=dict(config='faster_rcnn_r50/dsym_without_clip.py'),
    dsym_without_stages=dict(config='faster_rcnn_r50/dsym_without_stages.py'),
)
