"""The supervised baseline with 100 % of the labels."""

_base_ = 'supervised_neu_40pct.py'

split = '100pct_seed0'
