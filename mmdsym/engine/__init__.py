"""Loops, hooks and the runner."""

from .hooks import (
    ChannelsLastHook,
    FiniteStepHook,
    PseudoLabelMonitorHook,
    StageHook,
    TeacherGuardHook,
    TeacherUpdateHook,
    ThresholdCalibrationHook,
)
from .runner import DSYMRunner
from .train_loop import StagedTrainLoop
from .val_loop import TeacherStudentValLoop

__all__ = [
    'ChannelsLastHook',
    'DSYMRunner',
    'FiniteStepHook',
    'PseudoLabelMonitorHook',
    'StageHook',
    'StagedTrainLoop',
    'TeacherGuardHook',
    'TeacherStudentValLoop',
    'TeacherUpdateHook',
    'ThresholdCalibrationHook',
]
