"""How well scorers classify the crops of an annotation file, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch

from mmdsym.clip.labelled_crops import LabelledCrops
from mmdsym.clip.prototype_source import embed_crops
from mmdsym.clip.scorer import CLIPScorer
from mmdsym.errors import UserError
from mmdsym.evaluation.temperature import expected_calibration_error


class CropResult(NamedTuple):
    """How one scorer does.

    Attributes:
        accuracy: Share of right crops, in [0, 1].
        balanced_accuracy: Mean over the classes, in [0, 1].
        calibration_error: Expected calibration error in ten bins, in [0, 1].
        of_class: Share of right crops of each class and of the clean surface, in [0, 1].
    """

    accuracy: float
    balanced_accuracy: float
    calibration_error: float
    of_class: dict[str, float]


def evaluate_scorer(scorer: CLIPScorer, crops: LabelledCrops) -> CropResult:
    """Classifies labelled crops and clean surface.

    Args:
        scorer: Of the same classes.
        crops: Not among those that the scorer has learnt from.

    Raises:
        UserError: The classes differ.
    """
    if scorer.classes != crops.classes:
        raise UserError(
            f'the scorer has the classes {list(scorer.classes)}, the crops {list(crops.classes)}: '
            'give both the same data.'
        )
    found = embed_crops(crops, scorer.embed)
    probabilities = scorer.distribution(found.features.to(scorer.device)).cpu()
    right = (probabilities.argmax(dim=1) == found.labels).double()
    names = [*crops.classes, 'clean surface']
    of_class = {
        name: float(right[found.labels == label].mean())
        for label, name in enumerate(names)
        if (found.labels == label).any()
    }
    return CropResult(
        float(right.mean()),
        sum(of_class.values()) / len(of_class),
        expected_calibration_error(probabilities, found.labels),
        of_class,
    )


def crops_per_class(crops: LabelledCrops) -> dict[str, int]:
    """Returns how many crops each class and the clean surface have."""
    counts = torch.from_numpy(crops.labels()).bincount(minlength=len(crops.classes) + 1)
    return dict(zip([*crops.classes, 'clean surface'], counts.tolist(), strict=True))


def as_markdown(results: Mapping[str, CropResult], counts: Mapping[str, int]) -> str:
    """Returns the results as a Markdown table, a row for each scorer, in per cent."""
    names = [name for name, count in counts.items() if count]
    head = ['scorer', 'accuracy', 'balanced', 'calibration error', *names]
    rows = [
        [
            row,
            *(f'{100 * value:.1f}' for value in result[:3]),
            *(f'{100 * result.of_class[name]:.1f}' for name in names),
        ]
        for row, result in results.items()
    ]
    total = ['crops', str(sum(counts.values())), '', '', *(str(counts[name]) for name in names)]
    lines = [head, ['---', *(['---:'] * (len(head) - 1))], *rows, total]
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)
