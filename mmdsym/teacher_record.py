"""How the teacher of a run did on the calibration images, as its checkpoints have it."""

from __future__ import annotations

from dataclasses import dataclass

TEACHER_GUARD_STATE = 'teacher_guard'
"""Under which name a checkpoint has the fields of a :class:`TeacherRecord`."""


@dataclass
class TeacherRecord:
    """How the teacher did on the calibration images; kept in checkpoints.

    Attributes:
        level: mAP@0.5 when it was first judged: what the stages without unlabelled images reached.
        level_iteration: Iteration of that.
        best, best_iteration: Where it was highest; iteration -1 where no such checkpoint is left.
        last, last_iteration: As last judged.
        falls: Judgements in a row below the level.
        share: Part of the unsupervised weight that counts.
        boxes: Classes times the true boxes of the rarest one on the calibration images: a single
            box moves mAP by at most one in so many; 0 where nobody has counted.
    """

    level: float
    level_iteration: int
    best: float
    best_iteration: int
    last: float
    last_iteration: int
    falls: int = 0
    share: float = 1.0
    boxes: int = 0

    @property
    def best_checkpoint(self) -> str:
        """File name of the best teacher's checkpoint, in the work directory."""
        return f'best_teacher_iter_{self.best_iteration}.pth'

    @property
    def in_words(self) -> str:
        """One sentence on level, best and last, without its full stop."""
        best = (
            f'was best with {self.best:.3f} (iteration {self.best_iteration}, kept as '
            f'{self.best_checkpoint}) and '
            if self.best_iteration >= 0
            else ''
        )
        return (
            f'on the calibration images the teacher began with {self.level:.3f} mAP@0.5 '
            f'(iteration {self.level_iteration}), {best}had {self.last:.3f} when last judged '
            f'(iteration {self.last_iteration})'
        )
