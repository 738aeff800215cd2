"""Hooks, one promise each."""

from .channels_last_hook import ChannelsLastHook
from .finite_step_hook import FiniteStepHook
from .iteration_seed_hook import IterationSeedHook
from .pseudo_label_monitor_hook import PseudoLabelMonitorHook
from .stage_hook import StageHook
from .teacher_guard_hook import TeacherGuardHook
from .teacher_update_hook import TeacherUpdateHook
from .threshold_calibration_hook import ThresholdCalibrationHook

__all__ = [
    'ChannelsLastHook',
    'FiniteStepHook',
    'IterationSeedHook',
    'PseudoLabelMonitorHook',
    'StageHook',
    'TeacherGuardHook',
    'TeacherUpdateHook',
    'ThresholdCalibrationHook',
]
