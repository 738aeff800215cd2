"""The teacher-student detector of DSYM (arXiv 2507.05588), around any MMDetection detector."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from mmdet.models.detectors import SemiBaseDetector
from mmdet.models.utils import rename_loss_dict, reweight_loss_dict
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures import DetDataSample, SampleList
from mmengine.dist import get_world_size
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdsym.errors import UserError
from mmdsym.registry import MODELS
from mmdsym.stages import Stage

from .candidates import candidates_shown, suppress
from .ignore_regions import enable_ignore_regions
from .joint_features import features_given, joint_features, pad_alike
from .pseudo_labels import (
    PseudoLabelReviser,
    PseudoLabels,
    PseudoLabelScorer,
    PseudoLabelStatistics,
    blank_out,
    in_full_precision,
    project,
    select_pseudo_labels,
)
from .total_loss import total_loss
from .turned_view import predict_turned

LOSS_BRANCHES = {'labelled': ('sup', 'sup_'), 'synthetic': ('synthetic', 'synthetic_')}
"""Loss of the stage -> branch of the batch, prefix in the log."""


@MODELS.register_module()
class DSYMDetector(SemiBaseDetector):
    """Wraps a detector as teacher and student, and trains the student in stages.

    Hooks and loop tell it what the present stage wants (:meth:`begin_iteration`), when the
    teacher takes over the student (:meth:`copy_student_to_teacher`) and which scores to trust
    (:meth:`set_thresholds`).

    Args:
        detector: Config of any MMDetection detector, with its own ``data_preprocessor``.
        max_unsupervised_ratio: The unsupervised loss is scaled down when it exceeds this many
            times the supervised one, since pseudo-losses a hundred times too large have ended
            runs (unbiased-teacher-v2 #7).
        learn_from_empty_images: Whether an unlabelled image on which the teacher finds nothing,
            not even an uncertain box, counts as background. Right where clean products are
            common among the unlabelled images; otherwise missed defects would be unlearnt.
        ignore_overlap: Share of an anchor inside an uncertain box from which it is ignored.
        semi_test_cfg: ``predict_on`` is ``'teacher'`` (default) or ``'student'``.
        data_preprocessor: By default the detector's own, for every branch.
        init_cfg: As in MMEngine.

    Raises:
        UserError: The detector has no head with ``num_classes``.
    """

    def __init__(
        self,
        detector: Mapping,
        max_unsupervised_ratio: float = 2.0,
        learn_from_empty_images: bool = False,
        ignore_overlap: float = 0.5,
        semi_test_cfg: Mapping | None = None,
        data_preprocessor: Mapping | None = None,
        init_cfg: Mapping | None = None,
    ) -> None:
        # Past the parent, which builds both from one config: some detectors write into theirs.
        super(SemiBaseDetector, self).__init__(
            data_preprocessor=data_preprocessor
            or dict(
                type='mmdsym.StagedDataPreprocessor',
                data_preprocessor=detector['data_preprocessor'],
            ),
            init_cfg=init_cfg,
        )
        self.student = MMDET_MODELS.build(deepcopy(detector))
        self.teacher = MMDET_MODELS.build(deepcopy(detector))
        self.freeze(self.teacher)
        self.semi_test_cfg = dict(semi_test_cfg or dict(predict_on='teacher'))
        self.num_classes = count_classes(self.student)
        self.max_unsupervised_ratio = max_unsupervised_ratio
        self.learn_from_empty_images = learn_from_empty_images
        self.ignores_regions = enable_ignore_regions(self.student, ignore_overlap)
        self.scorer: PseudoLabelScorer | None = None
        self.stage: Stage | None = None
        self.iteration = 0
        self.unsupervised_share = 1.0
        self.statistics = PseudoLabelStatistics.empty(self.num_classes)
        # Buffers, so that a resumed run goes on with the thresholds that it had.
        self.register_buffer('keep_thresholds', torch.full((self.num_classes,), torch.nan))
        self.register_buffer('drop_thresholds', torch.full((self.num_classes,), torch.nan))

    def begin_iteration(self, stage: Stage, iteration: int) -> None:
        """Says which stage and global iteration the next batch belongs to."""
        self.stage = stage
        self.iteration = iteration

    def set_thresholds(self, keep: np.ndarray, drop: np.ndarray) -> None:
        """Sets the per-class score thresholds, each of shape (num_classes,)."""
        self.keep_thresholds.copy_(torch.as_tensor(keep))
        self.drop_thresholds.copy_(torch.as_tensor(np.minimum(keep, drop)))

    def set_pseudo_label_scorer(self, scorer: PseudoLabelScorer | None) -> None:
        """Sets the second opinion on pseudo-labels; ``None`` leaves the teacher's score.

        A scorer that is a :class:`CalibratedScorer` is fitted whenever thresholds are calibrated;
        one that is a :class:`PseudoLabelReviser` has the last word on the selected boxes.
        """
        self.scorer = scorer

    def set_unsupervised_share(self, share: float) -> None:
        """Sets what part of the stage's unsupervised weight counts, in [0, 1]."""
        self.unsupervised_share = share

    def copy_student_to_teacher(self) -> None:
        """Makes the teacher equal to the student, buffers included."""
        self.teacher.load_state_dict(self.student.state_dict())

    def collect_statistics(self) -> PseudoLabelStatistics:
        """Returns what became of pseudo-labels since the last call, and starts to count anew."""
        collected = self.statistics
        self.statistics = PseudoLabelStatistics.empty(self.num_classes)
        return collected

    def train(self, mode: bool = True) -> DSYMDetector:
        """Sets the student's mode; the teacher always stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def loss(
        self, multi_batch_inputs: dict[str, Tensor], multi_batch_data_samples: dict[str, SampleList]
    ) -> dict[str, Tensor]:
        """Returns the weighted losses of the branches that the batch has.

        With a loss weight of 1, each image of a branch counts as much as a labelled one.

        Args:
            multi_batch_inputs: Branch (``sup``, ``synthetic``, ``unsup_teacher``,
                ``unsup_student``) to images of shape (N, C, H, W), normalised.
            multi_batch_data_samples: The same branches to their data samples.
        """
        branches = [
            _Branch(
                multi_batch_inputs[branch],
                multi_batch_data_samples[branch],
                self._loss_weight(name),
                prefix,
            )
            for name, (branch, prefix) in LOSS_BRANCHES.items()
            if branch in multi_batch_inputs
        ]
        unlabelled = None
        if 'unsup_teacher' in multi_batch_inputs:
            unlabelled = self._unlabelled_branch(multi_batch_inputs, multi_batch_data_samples)
        parts = self._losses(branches if unlabelled is None else [*branches, unlabelled])
        losses = {name: loss for part in parts[: len(branches)] for name, loss in part.items()}
        if unlabelled is not None:
            losses.update(self._guarded(parts[-1], total_loss(losses)))
        return losses

    @torch.no_grad()
    def predict_with_teacher(
        self, batch_inputs: Tensor, batch_data_samples: SampleList
    ) -> list[InstanceData]:
        """Returns what the teacher alone finds.

        Args:
            batch_inputs: Weakly augmented images (N, C, H, W), normalised.
            batch_data_samples: Their data samples, with ``homography_matrix`` where moved.

        Returns:
            Per image ``bboxes`` in the frame of the original image, ``labels``, and the teacher's
            scores as ``scores`` and ``teacher_scores``. Where the scorer ``wants_candidates``, the
            meta information ``candidates`` holds the boxes before suppression; where it
            ``wants_turned_view``, ``views`` holds those found on the turned image.
        """
        results = self._find(batch_inputs, batch_data_samples)
        predictions = []
        for sample, result in zip(batch_data_samples, results, strict=True):
            found = _in_original_frame(result, sample)
            candidates = result.metainfo.get('candidates')
            if candidates is not None:
                found.set_metainfo(dict(candidates=_in_original_frame(candidates, sample)))
            found.teacher_scores = found.scores
            predictions.append(found)
        if getattr(self.scorer, 'wants_turned_view', False):
            turned = predict_turned(self.teacher, batch_inputs, batch_data_samples)
            for found, sample, view in zip(predictions, batch_data_samples, turned, strict=True):
                found.set_metainfo(dict(views=[_in_original_frame(view, sample)]))
        return predictions

    def _find(self, inputs: Tensor, samples: SampleList) -> list[InstanceData]:
        """The teacher's boxes in the frame of the view, with their candidates where wanted."""
        if not getattr(self.scorer, 'wants_candidates', False):
            results = self.teacher.predict(inputs, samples, rescale=False)
            return [result.pred_instances for result in results]
        with candidates_shown(self.teacher) as settings:
            results = self.teacher.predict(inputs, samples, rescale=False)
        found = [result.pred_instances for result in results]
        return [suppress(boxes, **settings) for boxes in found] if settings else found

    @torch.no_grad()
    def predict_for_pseudo_labels(
        self, batch_inputs: Tensor, batch_data_samples: SampleList
    ) -> list[InstanceData]:
        """Returns the teacher's boxes with the scores that thresholds are compared with.

        Args:
            batch_inputs: As for :meth:`predict_with_teacher`.
            batch_data_samples: As there.

        Returns:
            The same, where ``scores`` are the scorer's if there is one.
        """
        predictions = self.predict_with_teacher(batch_inputs, batch_data_samples)
        if self.scorer is not None:
            # As when it was calibrated, which happens outside of mixed precision.
            with torch.autocast(batch_inputs.device.type, enabled=False):
                scores = self.scorer(predictions, batch_data_samples)
            for found, score in zip(predictions, scores, strict=True):
                found.scores = score.to(found.teacher_scores)
        return predictions

    @torch.no_grad()
    def make_pseudo_labels(
        self, batch_inputs: Tensor, batch_data_samples: SampleList
    ) -> list[PseudoLabels]:
        """Returns kept and uncertain boxes per image, in the frame of the original image.

        Raises:
            UserError: No thresholds have been set yet.
        """
        if self.keep_thresholds.isnan().any():
            raise UserError(
                'pseudo-labels are asked for before any threshold is known: add '
                'mmdsym.ThresholdCalibrationHook to custom_hooks, or fix thresholds.keep in the '
                'stage.'
            )
        predictions = self.predict_for_pseudo_labels(batch_inputs, batch_data_samples)
        labels = [
            select_pseudo_labels(found, self.keep_thresholds, self.drop_thresholds)
            for found in predictions
        ]
        if isinstance(self.scorer, PseudoLabelReviser):
            with torch.autocast(batch_inputs.device.type, enabled=False):
                labels = self.scorer.revise(labels, batch_data_samples, self.iteration)
        for image in labels:
            self.statistics.count(image)
        return labels

    def _loss_weight(self, name: str) -> float:
        return 1.0 if self.stage is None else self.stage.loss_weight(name, self.iteration)

    def _losses(self, branches: list[_Branch]) -> list[dict[str, Tensor]]:
        """The student's weighted losses on each branch, from one pass of backbone and neck."""
        batches = pad_alike(
            [branch.images for branch in branches], [branch.samples for branch in branches]
        )
        losses = []
        for images, branch, features in zip(
            batches, branches, joint_features(self.student, batches), strict=True
        ):
            with features_given(self.student, features):
                found = self.student.loss(images, branch.samples)
            # A loss is a mean over its branch: two images shall not weigh as much as eight.
            weight = branch.weight * len(images) / len(batches[0])
            losses.append(rename_loss_dict(branch.prefix, reweight_loss_dict(found, weight)))
        return losses

    def _unlabelled_branch(
        self, inputs: dict[str, Tensor], samples: dict[str, SampleList]
    ) -> _Branch | None:
        """What the student learns from pseudo-labels; ``None`` where there is nothing to learn."""
        labels = self.make_pseudo_labels(inputs['unsup_teacher'], samples['unsup_teacher'])
        images, targets = inputs['unsup_student'], samples['unsup_student']
        # Judged by what the student sees: a crop can lose every kept box.
        seen = [_in_view(image, target) for image, target in zip(labels, targets, strict=True)]
        self._label(images, targets, seen)
        useful = [index for index, image in enumerate(seen) if self._teaches(image)]
        self.statistics.unused_images += len(seen) - len(useful)
        self.statistics.iterations += 1
        weight = self._loss_weight('unlabelled') * self.unsupervised_share
        if not useful or weight == 0:
            # Losses may synchronise processes, so that none of several may leave it out.
            if get_world_size() == 1:
                return None
            weight, useful = 0.0, list(range(len(labels)))
        return _Branch(images[useful], [targets[index] for index in useful], weight, 'unsup_')

    def _label(self, images: Tensor, targets: SampleList, labels: list[PseudoLabels]) -> None:
        """Gives the student's views their pseudo-labels, which are in the frame of the view."""
        for image, target, (kept, uncertain, _) in zip(images, targets, labels, strict=True):
            target.gt_instances = InstanceData(
                bboxes=kept.bboxes, labels=kept.labels, scores=kept.scores
            )
            if self.ignores_regions:
                target.ignored_instances = InstanceData(
                    bboxes=uncertain.bboxes, labels=uncertain.labels
                )
            else:
                blank_out(image, uncertain.bboxes, kept.bboxes)

    def _teaches(self, labels: PseudoLabels) -> bool:
        if len(labels.kept):
            return True
        return self.learn_from_empty_images and not len(labels.uncertain)

    def _guarded(self, losses: dict[str, Tensor], supervised: float) -> dict[str, Tensor]:
        """Keeps the unsupervised loss in proportion to the supervised one."""
        unsupervised = total_loss(losses)
        self.statistics.supervised_loss += supervised
        self.statistics.unsupervised_loss += unsupervised
        limit = self.max_unsupervised_ratio * supervised
        if unsupervised <= limit:
            return losses
        self.statistics.guarded_iterations += 1
        return reweight_loss_dict(losses, limit / unsupervised)


class _Branch(NamedTuple):
    """Images that the student learns from in one way.

    Attributes:
        images: (N, C, H, W), normalised.
        samples: Their data samples.
        weight: Of an image's loss, compared with that of a labelled one.
        prefix: Of the losses' names.
    """

    images: Tensor
    samples: SampleList
    weight: float
    prefix: str


def _in_view(labels: PseudoLabels, view: DetDataSample) -> PseudoLabels:
    homography = view.get('homography_matrix')
    kept, uncertain = (project(boxes, homography, view.img_shape) for boxes in labels[:2])
    return labels._replace(kept=kept, uncertain=uncertain)


def _in_original_frame(boxes: InstanceData, sample: DetDataSample) -> InstanceData:
    homography = sample.get('homography_matrix')
    boxes = in_full_precision(boxes)
    return project(boxes, homography, sample.ori_shape, inverse=True, min_size=0.0)


def count_classes(detector: nn.Module) -> int:
    """Returns the number of classes that a detector's box head tells apart.

    Raises:
        UserError: No head says how many.
    """
    for owner in (getattr(detector, 'roi_head', None), detector):
        head = getattr(owner, 'bbox_head', None)
        # Cascades have one head per refinement, all with the same classes.
        head = head[0] if isinstance(head, nn.ModuleList) else head
        if hasattr(head, 'num_classes'):
            return head.num_classes
    raise UserError(
        f'{type(detector).__name__} has no box head with num_classes: mmdsym trains detectors of '
        'boxes, so choose one whose bbox_head states its classes.'
    )
