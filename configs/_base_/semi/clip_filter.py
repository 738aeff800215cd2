"""DSYM with CLIP's second opinion on pseudo-labels.

Use it in place of ``dsym.py``. The scorer starts from ImageNet weights and knows classes from
labelled crops. A model adapted by ``configs/clip/adapt_clip_neu_40pct.py`` is better and judges
extent as well: ``clip_filter = dict(scorer=dict(_delete_=True, type='mmdsym.CLIPScorer',
weights='{data_root}clip/{split}', prototypes=_base_.clip_scorer.prototypes))``, with
``custom_hooks`` made of it as below.
"""

_base_ = 'dsym.py'

clip_scorer = dict(
    type='mmdsym.CLIPScorer',
    # Without adaptation the text tower knows nothing, and the trunk sees more than its projection.
    features=('embedding', 'trunk'),
    evidence='prototypes',
    prototypes=dict(
        ann_file='{data_root}annotations/{split}/burn_in.json',
        held_out_file='{data_root}annotations/{split}/calibration.json',
        images_dir='{data_root}images/',
        cache_dir='work_dirs/clip_features',
    ),
)
clip_filter = dict(
    type='mmdsym.CLIPPseudoLabelFilterHook',
    scorer=clip_scorer,
    labelled=dict(
        ann_file='{data_root}annotations/{split}/burn_in.json',
        images_dir='{data_root}images/',
    ),
    mode='hard',
)
custom_hooks = [clip_filter, *_base_.custom_hooks]
