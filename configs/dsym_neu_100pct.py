"""DSYM on NEU-DET with 100 % of the labels."""

_base_ = 'dsym_neu_40pct.py'

split = '100pct_seed0'
