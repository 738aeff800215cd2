"""NEU-DET in the ten minutes of one large GPU: all runs side by side, 40 % of the labels.

ATSS on efficientnet_lite2 at 384 px, equal labelled iterations for all. The synthetic images and
the CLIP model of the split are given (see ``atss_lite2/dsym_given_images.py``), so that none of
the time goes into them.
"""

_base_ = 'neu_cpu.py'

options = {
    'iterations': 1500,
    # As long as the schedule before it is shortened: validated at the end alone.
    'train_cfg.val_interval': 12000,
    'train_dataloader.num_workers': 2,
    # Depthwise convolutions are fast in half precision, laid out as channels_last.
    'optim_wrapper.type': 'AmpOptimWrapper',
}
# The benchmark tests both networks itself.
given = {'parts.clip': 'data/neu_det/clip/40pct_seed0', 'after_training': None}

# What is given belongs to these labelled images: seeds differ in everything else.
labels_seed = 0
fractions = [0.4]
seeds = [0, 1]
methods = dict(
    _delete_=True,
    dsym=dict(config='atss_lite2/dsym_given_images.py', options=given),
    dsym_without_clip=dict(config='atss_lite2/dsym_given_images_without_clip.py', options=given),
    dsym_without_diffusion=dict(config='atss_lite2/dsym_without_diffusion.py', options=given),
    soft_teacher_dense=dict(config='atss_lite2/soft_teacher_dense.py', seeds=[0]),
    supervised=dict(config='atss_lite2/supervised.py', fractions=[0.4, 1.0]),
)
