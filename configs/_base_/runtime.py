"""What every run has: scope, runner, log, checkpoints, pictures."""

custom_imports = dict(imports=['mmdsym'])
default_scope = 'mmdet'
runner_type = 'mmdsym.DSYMRunner'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=200, max_keep_ckpts=2),
    # Skips and counts steps whose loss or gradient is NaN; more than 4 in a row end the run.
    finite_steps=dict(type='mmdsym.FiniteStepHook', patience=4),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='DetVisualizationHook'),
)
log_processor = dict(type='LogProcessor', by_epoch=False, window_size=50)
visualizer = dict(
    type='DetLocalVisualizer',
    name='visualizer',
    vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')],
)
env_cfg = dict(
    # The number of images with pseudo-labels varies: trying all algorithms for each takes minutes.
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
randomness = dict(seed=0)
load_from = None
resume = False
log_level = 'INFO'
