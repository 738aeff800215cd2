"""A CLIP model that builds in a moment, for the tests of everything that needs one."""

from __future__ import annotations

TINY_CLIP = dict(
    embed_dim=8,
    vision_cfg=dict(
        timm_model_name='test_efficientnet',
        timm_pool='avg',
        timm_proj='linear',
        image_size=32,
    ),
    text_cfg=dict(context_length=24, vocab_size=49408, width=16, heads=2, layers=1),
)
