"""What became of pseudo-boxes, by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from mmengine.structures import InstanceData

from mmdsym.models import PseudoLabels

FATES = ('kept', 'down_weighted', 'dropped')
SCORES = ('teacher', 'clip', 'fused')
_COUNTED = ('boxes', 'gated', 'sums', 'scored', 'images', 'closed_images')


class FilterCounts:
    """Counts boxes and sums scores since the last look.

    A box is *kept* when it is ground truth of the iteration; *down-weighted* when it is neither
    that nor background, for being uncertain or by lot (:func:`mmdsym.clip.soft_labels`); *gated*
    when it is not kept because the image gate closed for its image; and *dropped* otherwise.

    Args:
        num_classes: Number of classes.

    Attributes:
        boxes: (3, num_classes), in the order of :data:`FATES`, without gated ones.
        gated: (num_classes,).
        sums: (3, num_classes), sums of :data:`SCORES` over all boxes that have the score.
        scored: (3, num_classes), numbers of those boxes.
        images, closed_images: Images seen, and those that the image gate closed for.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.boxes = np.zeros((len(FATES), num_classes), dtype=np.int64)
        self.gated = np.zeros(num_classes, dtype=np.int64)
        self.sums = np.zeros((len(SCORES), num_classes))
        self.scored = np.zeros((len(SCORES), num_classes), dtype=np.int64)
        self.images = self.closed_images = 0

    @property
    def seen(self) -> np.ndarray:
        """All boxes, (num_classes,)."""
        return self.boxes.sum(axis=0) + self.gated

    def count(self, labels: PseudoLabels, closed: bool = False) -> None:
        """Adds one image.

        Args:
            labels: Its boxes, with ``teacher_scores``, ``clip_scores`` and ``scores``.
            closed: Whether the image gate closed for it.
        """
        self.images += 1
        self.closed_images += closed
        for row, found in enumerate(labels):
            row_of_fate = self.gated if closed and row else self.boxes[row]
            row_of_fate += self._by_class(found, np.ones(len(found))).astype(np.int64)
            for column, field in enumerate(('teacher_scores', 'clip_scores', 'scores')):
                values = found[field].double().cpu().numpy()
                known = ~np.isnan(values)
                self.sums[column] += self._by_class(found, np.where(known, values, 0.0))
                self.scored[column] += self._by_class(found, known).astype(np.int64)

    def add(self, other: FilterCounts) -> None:
        """Adds the counts of another rank."""
        for name in _COUNTED:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def scalars(self, classes: Sequence[str]) -> dict[str, float]:
        """Returns boxes an image and mean scores, by class, for the visualizer."""
        values = {'clip_filter/closed_images': self.closed_images / max(1, self.images)}
        for label, name in enumerate(classes):
            values[f'clip_filter/seen_{name}'] = self.seen[label] / max(1, self.images)
            if self.closed_images:
                values[f'clip_filter/gated_{name}'] = self.gated[label] / max(1, self.images)
            for row, fate in enumerate(FATES):
                values[f'clip_filter/{fate}_{name}'] = self.boxes[row, label] / max(1, self.images)
            for row, score in enumerate(SCORES):
                if self.scored[row, label]:
                    mean = self.sums[row, label] / self.scored[row, label]
                    values[f'clip_filter/mean_{score}_{name}'] = mean
        return {key: float(value) for key, value in values.items()}

    def line(self, classes: Sequence[str]) -> str:
        """Says it in one line."""
        fates, columns = 'kept/down-weighted/dropped', self.boxes
        if self.closed_images:
            fates, columns = f'{fates}/gated', np.concatenate([self.boxes, self.gated[None]])
        parts = [
            f'{name} {self.seen[label]}: {"/".join(map(str, columns[:, label]))}'
            for label, name in enumerate(classes)
        ]
        means = [
            f'{score} {self.sums[row].sum() / self.scored[row].sum():.2f}'
            for row, score in enumerate(SCORES)
            if self.scored[row].sum()
        ]
        text = f'CLIP filter, boxes seen: {fates}: {", ".join(parts)}'
        text += f'; mean scores: {", ".join(means)}' if means else ''
        if self.closed_images:
            text += f'; {self.closed_images} of {self.images} images skipped as normal surface'
        return text

    def state_dict(self) -> dict[str, object]:
        """Returns the counts as lists and numbers, for a checkpoint."""
        return {name: np.asarray(getattr(self, name)).tolist() for name in _COUNTED}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Takes over what :meth:`state_dict` returned; what it does not know starts at 0."""
        for name in _COUNTED:
            if name not in state:
                continue
            present = getattr(self, name)
            given = state[name]
            is_array = isinstance(present, np.ndarray)
            setattr(self, name, np.array(given, dtype=present.dtype) if is_array else int(given))

    def _by_class(self, found: InstanceData, values: np.ndarray) -> np.ndarray:
        labels = found.labels.cpu().numpy()
        return np.bincount(labels, values, minlength=self.num_classes)
