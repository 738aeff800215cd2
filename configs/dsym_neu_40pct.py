"""DSYM on NEU-DET with 40 % of the labels: ATSS on efficientnet_lite0, on a CPU.

The whole of it: the diffusion model and the CLIP model are trained first, where they are missing.
"""

_base_ = [
    '_base_/runtime.py',
    '_base_/detectors/atss_efficientnet_lite0.py',
    '_base_/semi/dsym_whole.py',
]

data_root = 'data/neu_det/'
split = '40pct_seed0'

model = dict(_delete_=True, type='mmdsym.DSYMDetector', detector=_base_.model)
