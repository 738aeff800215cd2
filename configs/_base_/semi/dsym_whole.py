"""The whole of DSYM: synthetic defects, CLIP's second opinion, three stages, test, export, report.

``tools/train.py`` makes each part that is missing before it trains the detector: its folder gets
the part's key as suffix, which follows from the labels, the images and the part's config. Where
the name of a part stands in braces, that folder is meant. A model made elsewhere is taken as it
is: ``--cfg-options parts.diffusion=FOLDER``.
"""

_base_ = ['clip_filter.py', '../datasets/synthetic.py', '../schedules/stages_cpu.py']

# What CLIP is told about each class, {'scratch': ['a thin bright scratch', ...], ...}, and about a
# normal surface; by default sentences are made of the class names.
prompts = dict()
background_prompts = None

parts = dict(
    diffusion=dict(
        config='diffusion/defect_inpaint_neu_40pct.py',
        folder='{data_root}diffusion/{split}',
    ),
    clip=dict(
        config='clip/adapt_clip_neu_40pct.py',
        folder='{data_root}clip/{split}',
        options={
            'model.prompts': '{prompts}',
            'model.background_prompts': '{background_prompts}',
        },
    ),
)
# Guesses at the seconds of one iteration of each part, of one region to paint, and of one image in
# training and in a test, on 2 CPU cores: what --dry-run goes by where nothing was measured.
rough_seconds = dict(diffusion=1.0, clip=0.6, region=0.6, image=0.06, test_image=0.05)

synthetic_source = dict(
    _base_.synthetic,
    synthesiser=dict(_base_.synthetic.synthesiser, weights='{diffusion}'),
    accept=dict(_base_.synthetic.accept, scorer=dict(weights='{clip}')),
    pipeline=[
        *_base_.supervised_views,
        dict(type='MultiBranch', branch_field=_base_.branches, synthetic=_base_.pack),
    ],
)
train_dataloader = dict(
    dataset=dict(sources=dict(synthetic=dict(_delete_=True, **synthetic_source)))
)
train_cfg = dict(
    stages=dict(
        burn_in=dict(images=dict(labelled=8, synthetic=2)),
        joint=dict(images=dict(labelled=8, synthetic=2)),
        refine=dict(
            images=dict(labelled=7, synthetic=2),
            loss_weights=dict(synthetic=dict(start=1.0, end=0.0, iterations=300)),
        ),
    ),
)
auto_scale_lr = dict(base_batch_size=18)

adapted_filter = dict(
    _base_.clip_filter,
    scorer=dict(
        type='mmdsym.CLIPScorer', weights='{clip}', prototypes=_base_.clip_scorer.prototypes
    ),
)
# Without the filter that knows no adapted model.
custom_hooks = [adapted_filter, *_base_.custom_hooks[1:]]

after_training = dict(test=['teacher', 'student'], export='teacher', report=True)
