"""NEU-DET on a CPU: supervised training, Soft Teacher, and DSYM with and without its parts.

``soft_teacher_dense`` is what Soft Teacher comes down to on the same one-stage detector;
``faster_rcnn_*`` compares MMDetection's own Soft Teacher on a small detector of two stages.
"""

data_root = 'data/neu_det/'
prepare = 'python tools/prepare_dataset.py path/to/NEU-DET --name neu_det'

fractions = [0.4]
seeds = [0]
methods = dict(
    supervised=dict(config='atss_lite0/supervised.py', fractions=[0.4, 1.0]),
    soft_teacher_dense=dict(config='atss_lite0/soft_teacher_dense.py'),
    dsym=dict(config='atss_lite0/dsym.py'),
    dsym_without_diffusion=dict(config='atss_lite0/dsym_without_diffusion.py'),
    dsym_without_clip=dict(config='atss_lite0/dsym_without_clip.py'),
    dsym_without_stages=dict(config='atss_lite0/dsym_without_stages.py'),
    faster_rcnn_supervised=dict(config='faster_rcnn_lite0/supervised.py'),
    faster_rcnn_soft_teacher=dict(config='faster_rcnn_lite0/soft_teacher.py'),
    faster_rcnn_dsym=dict(config='faster_rcnn_lite0/dsym.py'),
)
