"""DSYM on NEU-DET with 20 % of the labels."""

_base_ = 'dsym_neu_40pct.py'

split = '20pct_seed0'
