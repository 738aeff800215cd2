"""Loops, hooks and the runner."""

from .bfloat16_optim_wrapper import Bfloat16OptimWrapper
from .hooks import (
    ChannelsLastHook,
    FiniteStepHook,
    PseudoLabelMonitorHook,
    StageHook,
    TeacherGuardHook,
    TeacherUpdateHook,
    ThresholdCalibrationHook,
)
from .optimizer_groups import GroupedOptimWrapperConstructor
from .runner import DSYMRunner
from .train_loop import StagedTrainLoop
from .val_loop import TeacherStudentValLoop

__all__ = [
    'Bfloat16OptimWrapper',
    'ChannelsLastHook',
    'DSYMRunner',
    'FiniteStepHook',
    'GroupedOptimWrapperConstructor',
    'PseudoLabelMonitorHook',
    'StageHook',
    'StagedTrainLoop',
    'TeacherGuardHook',
    'TeacherStudentValLoop',
    'TeacherUpdateHook',
    'ThresholdCalibrationHook',
]
