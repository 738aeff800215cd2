"""The labelled images alone."""

_base_ = '../../baselines/supervised_neu_40pct.py'
