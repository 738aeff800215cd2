"""Tells the detector which stage it is in."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmdsym.models import DSYMDetector
from mmdsym.registry import HOOKS
from mmdsym.stages import Stage

_TEACHER, _STUDENT = 'teacher.', 'student.'


def dsym_model(runner: Runner) -> DSYMDetector:
    """Returns the runner's detector without the wrapper of distributed training."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


@HOOKS.register_module()
class StageHook(Hook):
    """Passes stage and iteration to the detector, and logs where a stage begins.

    When the first stage with unlabelled images begins, the teacher becomes the student's copy; in
    checkpoints of stages without them it is that already, so that each is one to deploy.
    It runs before all other hooks of an iteration, so that they find the stage set.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Announces the stage of this iteration."""
        stage = runner.train_loop.stage
        model = dsym_model(runner)
        previous = model.stage
        model.begin_iteration(stage, runner.iter)
        # runner.iter tells a stage that begins from one that a resumed run comes back to.
        if runner.iter == stage.begin:
            images = ', '.join(f'{count} {source}' for source, count in stage.images.items())
            runner.logger.info(
                f"Stage '{stage.name}' begins: iterations {stage.begin} to {stage.end}, "
                f'{images} images a batch.'
            )
            if stage.uses_teacher and not _had_teacher(runner, stage):
                model.copy_student_to_teacher()
                runner.logger.info("The teacher starts as the student's copy.")
        elif previous is None:
            runner.logger.info(
                f"Stage '{stage.name}' goes on at iteration {runner.iter} of {stage.end}."
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Writes the student as teacher, too, where the stage has no teacher of its own."""
        stage = dsym_model(runner).stage
        if stage is None or stage.uses_teacher:
            return
        state = checkpoint['state_dict']
        for name in [name for name in state if name.startswith(_STUDENT)]:
            state[_TEACHER + name.removeprefix(_STUDENT)] = state[name]


def _had_teacher(runner: Runner, stage: Stage) -> bool:
    """Whether the stage before had a teacher, which a run resumed at the border has loaded."""
    stages = list(runner.train_loop.schedule.stages)
    place = stages.index(stage)
    return place > 0 and stages[place - 1].uses_teacher
