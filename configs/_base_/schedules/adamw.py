"""AdamW with a warm-up and one cosine; gentle with what ImageNet taught the backbone."""

optim_wrapper = dict(
    type='mmdsym.Bfloat16OptimWrapper',
    constructor='mmdsym.GroupedOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=10, norm_type=2),
    paramwise_cfg=dict(
        norm_decay_mult=0,
        bias_decay_mult=0,
        custom_keys={'backbone': dict(lr_mult=0.3)},
    ),
)
