"""The supervised baseline with 20 % of the labels."""

_base_ = 'supervised_neu_40pct.py'

split = '20pct_seed0'
