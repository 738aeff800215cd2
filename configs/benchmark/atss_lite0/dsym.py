"""DSYM with all its parts."""

_base_ = '../../dsym_neu_40pct.py'
