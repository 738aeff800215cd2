"""Learns to paint the defects of your own parts in colour: the network for NEU-DET, three channels.

A whole run takes it as ``parts = dict(diffusion=dict(config=...))`` with this file's path below
``configs/``. On images whose channels are equal it brings nothing.
"""

_base_ = 'defect_inpaint_neu_40pct.py'

data_root = 'data/my_parts/'
split = '100pct_seed0'

model = dict(denoiser=dict(channels=3))
region = dict(_base_.region, channels=3)
train_dataloader = dict(dataset=dict(pipeline=[*_base_.load, *_base_.orientation, region]))
val_dataloader = dict(dataset=dict(pipeline=[*_base_.load, {**region, 'fixed': True}]))
