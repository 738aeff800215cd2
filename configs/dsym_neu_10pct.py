"""DSYM on NEU-DET with 10 % of the labels."""

_base_ = 'dsym_neu_40pct.py'

split = '10pct_seed0'
