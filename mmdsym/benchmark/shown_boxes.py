"""What of a detector is shown: precision and recall from its calibrated scores on."""

from __future__ import annotations

from dataclasses import asdict
from math import isnan
from statistics import fmean

from mmdsym.report.predictions import open_validation_data, predict
from mmdsym.report.quality import Agreement, match_boxes
from mmdsym.trained_run import TrainedRun
from mmdsym.visualization.detections import thresholds_of


def judge_shown_boxes(run: TrainedRun, which: str = 'teacher') -> dict | None:
    """Compares the boxes that a network would show with the truth of the test images.

    Args:
        run: The run.
        which: ``'teacher'`` or ``'student'``; the scores are the teacher's.

    Returns:
        Of all classes together: how many boxes were ``found``, how many of them are ``right`` and
        how many ``true`` ones there are; ``precision``, ``recall`` and ``f1`` that follow, in
        [0, 1], ``None`` where there is no box. The same of each of the ``classes``, with its
        ``from_score``; ``mean_f1`` is the mean of those that have boxes. ``None`` for a run that
        calibrated no scores.

    Raises:
        UserError: The test images are not there.
    """
    if run.own_thresholds is None:
        return None
    data, thresholds = open_validation_data(run), thresholds_of(run).tolist()
    matches = match_boxes(data, predict(run, which, data), thresholds)
    agreements = [matches.agreement(label) for label in range(len(data.classes))]
    known = [agreement.f1 for agreement in agreements if not isnan(agreement.f1)]
    return {
        **_numbers(matches.agreement()),
        'mean_f1': round(fmean(known), 4) if known else None,
        'classes': {
            name: {'from_score': round(score, 4), **_numbers(agreement)}
            for name, score, agreement in zip(data.classes, thresholds, agreements, strict=True)
        },
    }


def _numbers(agreement: Agreement) -> dict[str, float | None]:
    shares = dict(precision=agreement.precision, recall=agreement.recall, f1=agreement.f1)
    known = {name: None if isnan(share) else round(share, 4) for name, share in shares.items()}
    return {**asdict(agreement), **known}
