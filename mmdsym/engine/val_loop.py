"""Validation of teacher and student."""

from __future__ import annotations

from mmengine.model import is_model_wrapper
from mmengine.runner import ValLoop

from mmdsym.models import DSYMDetector
from mmdsym.registry import LOOPS


@LOOPS.register_module()
class TeacherStudentValLoop(ValLoop):
    """Evaluates both networks, as ``teacher/...`` and ``student/...``.

    While the present stage needs no teacher, the teacher is the student's copy: one evaluation
    serves both.
    """

    def run(self) -> dict[str, float]:
        """Returns the metrics of both."""
        self.runner.call_hook('before_val')
        self.runner.call_hook('before_val_epoch')
        self.runner.model.eval()
        model = self.runner.model
        model = model.module if is_model_wrapper(model) else model
        metrics = {f'student/{key}': value for key, value in self._evaluate('student').items()}
        if self._teacher_is_copy(model):
            model.copy_student_to_teacher()
            metrics |= {
                key.replace('student/', 'teacher/', 1): value for key, value in metrics.items()
            }
        else:
            metrics |= {f'teacher/{key}': value for key, value in self._evaluate('teacher').items()}
        self.runner.call_hook('after_val_epoch', metrics=metrics)
        self.runner.call_hook('after_val')
        return metrics

    def _teacher_is_copy(self, model: DSYMDetector) -> bool:
        return model.stage is not None and not model.stage.uses_teacher

    def _evaluate(self, network: str) -> dict[str, float]:
        model = self.runner.model
        settings = (model.module if is_model_wrapper(model) else model).semi_test_cfg
        before = settings.get('predict_on', 'teacher')
        settings['predict_on'] = network
        try:
            for index, batch in enumerate(self.dataloader):
                self.run_iter(index, batch)
            return self.evaluator.evaluate(len(self.dataloader.dataset))
        finally:
            settings['predict_on'] = before
