"""Whether everything runs: minutes on a CPU, on generated images; the numbers mean nothing."""

_base_ = 'neu_cpu.py'

demo = dict(images=60, size=96)
data_root = None

options = {
    'image_size': (96, 96),
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'default_hooks.logger.interval': 5,
    'default_hooks.checkpoint.interval': 10,
    'param_scheduler': [],
}
without_stages = {'train_cfg.max_iters': 20, 'train_cfg.val_interval': 20}
# A diffusion and a CLIP model of a few iterations, for all runs together.
with_parts = {
    'parts.diffusion.config': 'diffusion/defect_inpaint_demo.py',
    'parts.diffusion.options.train_cfg.max_iters': 10,
    'parts.diffusion.options.train_cfg.val_interval': 10,
    'parts.diffusion.options.param_scheduler': [],
    'parts.clip.config': 'clip/adapt_clip_demo.py',
    'parts.clip.options.train_cfg.max_iters': 10,
    'parts.clip.options.train_cfg.val_interval': 10,
    'parts.clip.options.param_scheduler': [],
    'after_training': None,
}
few_synthetic_images = {
    'train_dataloader.dataset.sources.synthetic.count': 8,
    'train_dataloader.dataset.sources.synthetic.max_attempts': 1,
}
with_stages = {
    **with_parts,
    'train_cfg.val_interval': 20,
    'train_cfg.stages.burn_in.end': 8,
    'train_cfg.stages.joint.begin': 8,
    'train_cfg.stages.joint.end': 16,
    'train_cfg.stages.joint.loss_weights.unlabelled.iterations': 4,
    'train_cfg.stages.refine.begin': 16,
    'train_cfg.stages.refine.end': 20,
    'train_cfg.stages.refine.loss_weights.synthetic.iterations': 4,
}
methods = dict(
    supervised=dict(options=without_stages),
    soft_teacher_dense=dict(options=without_stages),
    dsym=dict(options={**with_stages, **few_synthetic_images}),
    dsym_without_diffusion=dict(options=with_stages),
    dsym_without_clip=dict(options={**with_stages, **few_synthetic_images}),
    dsym_without_stages=dict(
        options={
            **with_parts,
            **few_synthetic_images,
            'train_cfg.val_interval': 20,
            'train_cfg.stages.joint.end': 20,
            'train_cfg.stages.joint.loss_weights.unlabelled.iterations': 4,
        }
    ),
    faster_rcnn_supervised=dict(options=without_stages),
    faster_rcnn_soft_teacher=dict(options=without_stages),
    faster_rcnn_dsym=dict(options={**with_stages, **few_synthetic_images}),
)
