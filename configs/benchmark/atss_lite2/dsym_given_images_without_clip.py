"""DSYM with the teacher's own scores: the CLIP filter is off in every stage."""

_base_ = 'dsym_given_images.py'

filter_hook = 'mmdsym.CLIPPseudoLabelFilterHook'
custom_hooks = [
    dict(hook, mode='off', schedule=None) if hook.type == filter_hook else hook
    for hook in _base_.custom_hooks
]
