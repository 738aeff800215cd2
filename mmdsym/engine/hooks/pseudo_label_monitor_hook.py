"""Says in plain words what becomes of the pseudo-labels, and when something is wrong with them."""

from __future__ import annotations

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdsym.models import PseudoLabelStatistics
from mmdsym.registry import HOOKS

from .stage_hook import dsym_model


def boxes_per_image(dataset: BaseDataset) -> np.ndarray:
    """Returns the labelled boxes of each class per image, those to be ignored left out."""
    counts = np.zeros(len(dataset.metainfo['classes']))
    for index in range(len(dataset)):
        instances = dataset.get_data_info(index)['instances']
        counted = [i['bbox_label'] for i in instances if not i.get('ignore_flag', 0)]
        np.add.at(counts, counted, 1)
    return counts / max(1, len(dataset))


@HOOKS.register_module()
class PseudoLabelMonitorHook(Hook):
    """Logs pseudo-boxes against the labelled density, and warns in one sentence.

    It speaks when pseudo-labels stay empty or flood, when the unsupervised loss outgrows the
    supervised one, and when the teacher falls behind the student in validation: faults that have
    passed in silence for whole runs (SoftTeacher #117, EfficientTeacher #18).

    Args:
        interval: Iterations between two lines of the log.
        empty_below: Share of the labelled boxes per image under which pseudo-labels count as
            empty.
        flood_above: Multiple of the labelled boxes per image over which they count as a flood.
        max_lag: Fall of the teacher's metric below the student's that is called a drift, in
            units of the metric.
        metric: Which metric of the validation tells teacher and student apart.
    """

    priority = 'LOW'

    def __init__(
        self,
        interval: int = 50,
        empty_below: float = 0.05,
        flood_above: float = 3.0,
        max_lag: float = 0.05,
        metric: str = 'coco/bbox_mAP_50',
    ) -> None:
        self.interval = interval
        self.empty_below = empty_below
        self.flood_above = flood_above
        self.max_lag = max_lag
        self.metric = metric
        self.labelled_density: np.ndarray | None = None

    def before_train(self, runner: Runner) -> None:
        """Counts the labelled boxes, and says how uncertain boxes are treated."""
        self.labelled_density = boxes_per_image(runner.train_dataloader.dataset.source('labelled'))
        model = dsym_model(runner)
        if not model.ignores_regions:
            runner.logger.info(
                f'The loss of {type(model.student).__name__} cannot ignore regions: uncertain '
                "boxes are painted over in the student's images instead."
            )

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Logs every ``interval`` iterations of a stage with unlabelled images."""
        if dsym_model(runner).stage.uses_teacher and self.every_n_train_iters(
            runner, self.interval
        ):
            self._report(runner, gather(dsym_model(runner).collect_statistics()))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Compares teacher and student."""
        teacher, student = (
            (metrics or {}).get(f'{network}/{self.metric}') for network in ('teacher', 'student')
        )
        if teacher is None or student is None or teacher >= student - self.max_lag:
            return
        runner.logger.warning(
            f'The teacher ({teacher:.3f} {self.metric}) has fallen behind the student '
            f'({student:.3f}): its average is likely too slow for so short a run, so lower decay '
            'of TeacherUpdateHook.'
        )

    def _report(self, runner: Runner, statistics: PseudoLabelStatistics) -> None:
        images = max(1, statistics.images)
        density = statistics.kept / images
        classes = runner.train_dataloader.dataset.metainfo['classes']
        parts = ', '.join(
            f'{name} {found:.2f} ({labelled:.2f})'
            for name, found, labelled in zip(classes, density, self.labelled_density, strict=True)
        )
        uncertain = statistics.uncertain.sum() / images
        runner.logger.info(
            f'Pseudo-boxes per unlabelled image (labelled density): all {density.sum():.2f} '
            f'({self.labelled_density.sum():.2f}), {parts}; uncertain {uncertain:.2f}; '
            f'{statistics.unused_images} of {statistics.images} images without a kept box.'
        )
        self._record(runner, statistics, classes)
        for sentence in self.complaints(statistics):
            runner.logger.warning(sentence)

    def _record(
        self, runner: Runner, statistics: PseudoLabelStatistics, classes: tuple[str, ...]
    ) -> None:
        images = max(1, statistics.images)
        for kind in ('kept', 'uncertain', 'dropped'):
            counts = getattr(statistics, kind)
            runner.visualizer.add_scalars(
                {
                    f'pseudo_boxes/{kind}_{c}': n / images
                    for c, n in zip(classes, counts, strict=True)
                }
                | {f'pseudo_boxes/{kind}': counts.sum() / images},
                step=runner.iter + 1,
            )

    def complaints(self, statistics: PseudoLabelStatistics) -> list[str]:
        """Returns one sentence for each thing that is wrong, with its likely cause."""
        found = statistics.kept.sum() / max(1, statistics.images)
        labelled = self.labelled_density.sum()
        sentences = []
        if found < self.empty_below * labelled:
            sentences.append(
                f'Pseudo-labels are nearly empty ({found:.2f} boxes an image against '
                f'{labelled:.2f} labelled), so the unlabelled images teach nothing: the teacher '
                'is likely too weak, so lengthen the first stage or lower target_precision.'
            )
        if found > self.flood_above * labelled:
            sentences.append(
                f'Pseudo-labels flood ({found:.2f} boxes an image against {labelled:.2f} '
                'labelled): the thresholds are likely too low for these images, so raise '
                'target_precision or check that the calibration images look like them.'
            )
        if statistics.guarded_iterations > statistics.iterations / 2:
            ratio = statistics.unsupervised_loss / max(1e-9, statistics.supervised_loss)
            sentences.append(
                f'The unsupervised loss is {ratio:.1f} times the supervised one and was scaled '
                'down: pseudo-labels are likely wrong or the weight of the unlabelled loss too '
                'high, so lower loss_weights.unlabelled or raise target_precision.'
            )
        return sentences


def gather(statistics: PseudoLabelStatistics) -> PseudoLabelStatistics:
    """Adds up the statistics of all ranks."""
    parts = all_gather_object(statistics)
    names = PseudoLabelStatistics.__dataclass_fields__
    return PseudoLabelStatistics(
        **{name: sum(getattr(part, name) for part in parts) for name in names}
    )
