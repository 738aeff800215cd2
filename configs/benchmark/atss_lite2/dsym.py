"""DSYM with all its parts, on one GPU."""

_base_ = '../../dsym_atss_lite2_neu_40pct.py'
