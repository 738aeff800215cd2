"""NEU-DET in the ten minutes of one large GPU: all runs side by side, 40 % of the labels.

ATSS on efficientnet_lite2 at 384 px, equal labelled iterations for all. The synthetic images and
the CLIP model of the split are given (see ``atss_lite2/dsym_given_images.py``), so that none of
the time goes into them.
"""

_base_ = 'neu_cpu.py'

iterations = 1500
# A third for burn_in, half for joint, a sixth for refine, as in schedules/stages_gpu.py.
burn_in, joint = iterations // 3, iterations * 5 // 6
warm_up = iterations // 20
loader = {'train_dataloader.num_workers': 2}
# Depthwise convolutions are fast in half precision, laid out as channels_last.
options = {'optim_wrapper.type': 'AmpOptimWrapper'}
stages = {
    'train_cfg.val_interval': iterations,
    'train_cfg.stages.burn_in.end': burn_in,
    'train_cfg.stages.joint.begin': burn_in,
    'train_cfg.stages.joint.end': joint,
    'train_cfg.stages.joint.loss_weights.unlabelled.iterations': iterations // 12,
    'train_cfg.stages.refine.begin': joint,
    'train_cfg.stages.refine.end': iterations,
    'train_cfg.stages.refine.loss_weights.synthetic.iterations': iterations - joint,
    'param_scheduler.0.end': warm_up,
    'param_scheduler.1.begin': warm_up,
    # The benchmark tests both networks itself.
    'after_training': None,
    **loader,
}
one_stage = {
    'train_cfg.max_iters': iterations,
    'train_cfg.val_interval': iterations,
    'param_scheduler.0.end': warm_up,
    'param_scheduler.1.begin': warm_up,
    'param_scheduler.1.end': iterations,
    **loader,
}
given = {'parts.clip': 'data/neu_det/clip/40pct_seed0', **stages}

# What is given belongs to these labelled images: seeds differ in everything else.
labels_seed = 0
fractions = [0.4]
seeds = [0, 1]
methods = dict(
    _delete_=True,
    dsym=dict(config='atss_lite2/dsym_given_images.py', options=given),
    dsym_without_clip=dict(config='atss_lite2/dsym_given_images_without_clip.py', options=given),
    dsym_without_diffusion=dict(config='atss_lite2/dsym_without_diffusion.py', options=given),
    soft_teacher_dense=dict(
        config='atss_lite2/soft_teacher_dense.py', seeds=[0], options=one_stage
    ),
    supervised=dict(config='atss_lite2/supervised.py', fractions=[0.4, 1.0], options=one_stage),
)
