"""Synthetic images made from the labelled ones of a split, kept beside the data.

Without a pipeline: ``_base_/semi/dsym_synthetic.py`` and ``baselines/supervised_synthetic_*``
make a source of it.
"""

synthetic = dict(
    type='mmdsym.DiffusionSynthesisDataset',
    dataset=dict(
        type='mmdsym.DefectDataset',
        ann_file='{data_root}annotations/{split}/burn_in.json',
        data_prefix=dict(img='{data_root}images/'),
    ),
    synthesiser=dict(type='mmdsym.DiffusionSynthesiser', weights='{data_root}diffusion/{split}'),
    layout=dict(
        kinds=dict(repaint=0.5, add=0.3, rescale=0.2),
        sizes=dict(small=1, medium=1, large=1),
        class_balance=0.5,
        defects_per_image=(1, 2),
        # Far enough for new shapes and brightness; beyond, thin scratches fade away.
        strength=(0.2, 0.4),
    ),
    # What CLIP, adapted to the labelled crops, does not take for its class is painted again.
    accept=dict(type='mmdsym.CLIPAcceptance', scorer=dict(weights='{data_root}clip/{split}')),
    count=600,
    cache_dir='{data_root}synthetic/{split}',
)
