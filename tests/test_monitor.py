"""What has ended runs in silence is said aloud."""

import logging

import numpy as np
import pytest

from mmdsym.engine import PseudoLabelMonitorHook
from mmdsym.models import PseudoLabelStatistics


def hook() -> PseudoLabelMonitorHook:
    made = PseudoLabelMonitorHook()
    made.labelled_density = np.array([1.0, 1.0])
    return made


def statistics(kept: int, **changes) -> PseudoLabelStatistics:
    made = PseudoLabelStatistics.empty(2)
    made.kept += np.array([kept, 0])
    made.images, made.iterations = 100, 10
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_sound_pseudo_labels_are_not_complained_about():
    assert hook().complaints(statistics(150, guarded_iterations=2)) == []


@pytest.mark.parametrize(
    ('kept', 'changes', 'sentence'),
    [
        (0, {}, 'nearly empty'),
        (1000, {}, 'flood'),
        (
            150,
            dict(guarded_iterations=8, supervised_loss=1.0, unsupervised_loss=9.0),
            '9.0 times the supervised',
        ),
    ],
)
def test_each_fault_has_its_sentence(kept, changes, sentence):
    complaints = hook().complaints(statistics(kept, **changes))
    assert len(complaints) == 1
    assert sentence in complaints[0]
    assert 'likely' in complaints[0]


class Runner:
    logger = logging.getLogger('monitor-test')


@pytest.mark.parametrize(('teacher', 'warned'), [(0.50, False), (0.30, True)])
def test_a_teacher_that_falls_behind(teacher, warned, caplog):
    metrics = {'teacher/coco/bbox_mAP_50': teacher, 'student/coco/bbox_mAP_50': 0.52}
    with caplog.at_level(logging.WARNING, logger='monitor-test'):
        hook().after_val_epoch(Runner, metrics)
    assert ('fallen behind' in caplog.text) == warned
