"""DSYM on your own parts: set data_root to what tools/prepare_dataset.py wrote.

``split`` names what is labelled: ``100pct_seed0`` takes all labels, and as unlabelled images the
folder given as ``--unlabelled-dir`` (without one, the training images themselves).
"""

_base_ = 'dsym_neu_40pct.py'

data_root = 'data/my_parts/'
split = '100pct_seed0'
image_size = (320, 320)

# Sentences for CLIP, where a class name says little: {'class name': ['a thin bright line', ...]}.
prompts = dict()
