"""DSYM: what every teacher-student run has in common (arXiv 2507.05588).

A leaf config wraps its detector: ``model = dict(_delete_=True, type='mmdsym.DSYMDetector',
detector=_base_.model)``, and declares its stages.
"""

_base_ = '../datasets/semi_supervised.py'

val_cfg = dict(type='mmdsym.TeacherStudentValLoop')
test_cfg = dict(type='TestLoop')

custom_hooks = [
    dict(type='mmdsym.IterationSeedHook'),
    dict(type='mmdsym.ChannelsLastHook'),
    dict(type='mmdsym.StageHook'),
    dict(
        type='mmdsym.ThresholdCalibrationHook',
        dataloader=_base_.calibration_dataloader,
        further_dataloader=_base_.further_dataloader,
    ),
    dict(type='mmdsym.TeacherUpdateHook', decay=0.998),
    dict(type='mmdsym.TeacherGuardHook'),
    dict(type='mmdsym.PseudoLabelMonitorHook'),
]
