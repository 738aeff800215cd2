"""The supervised baseline with 10 % of the labels."""

_base_ = 'supervised_neu_40pct.py'

split = '10pct_seed0'
