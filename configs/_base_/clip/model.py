"""A CLIP model for machines that reach no hub: ImageNet's image tower, a small text tower."""

crop_size = 112
views = [dict(context=1.5, shape='box')]

clip_model = dict(
    embed_dim=256,
    vision_cfg=dict(
        timm_model_name='tf_efficientnet_lite0',
        timm_pool='avg',
        timm_proj='linear',
        image_size=crop_size,
    ),
    text_cfg=dict(context_length=32, width=256, heads=4, layers=3),
)
