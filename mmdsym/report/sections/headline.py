"""What the run reached, in a few lines."""

from __future__ import annotations

from dataclasses import dataclass

from mmdsym.errors import UserError
from mmdsym.report.material import Material
from mmdsym.report.parts import per_cent
from mmdsym.teacher_record import TEACHER_GUARD_STATE, TeacherRecord

_DISAGREEMENT = 0.005


@dataclass(frozen=True)
class Headline:
    """The top of the page.

    Attributes:
        title: Name of the run.
        numbers: What is measured and its value, the most important first.
        sentences: What else must be known at once.
        warnings: What is wrong with the run, so that no reader misses it.
    """

    title: str
    numbers: tuple[tuple[str, str], ...]
    sentences: tuple[str, ...]
    warnings: tuple[str, ...]


def make_headline(material: Material) -> Headline:
    """Says what was reached, on what, and whether it beats supervised training."""
    warnings: list[str] = []
    values = {network: _map50(material, network, warnings) for network in material.networks}
    deployed = values[material.networks[0]]
    numbers = [(f'{network}: mAP@0.5', f'{per_cent(v)} %') for network, v in values.items()]
    warnings += [*_unfinished(material), *_disagreement(material, deployed)]
    sentences = [*_on_calibration(material)]
    if material.reference is not None and deployed is not None:
        comparison = compare(material, deployed)
        (sentences if deployed >= material.reference.map50 else warnings).append(comparison)
    elif material.run.is_pair:
        sentences.append(
            'No supervised run with the same labels and validation images lies beside this one, so '
            'that nobody knows what the unlabelled images brought: tools/train.py CONFIG '
            '--with-baseline trains one of equal length.'
        )
    sentences += _facts(material)
    title = material.run.config_path.stem
    return Headline(title, tuple(numbers), tuple(sentences), tuple(warnings))


def compare(material: Material, deployed: float) -> str:
    """Says in one line how far the run lies above or below the supervised reference."""
    reference = material.reference
    points = 100 * (deployed - reference.map50)
    side = 'above' if points >= 0 else 'below'
    unequal = f'; this run is at {material.step}' if material.step != reference.step else ''
    return (
        f'{abs(points):.1f} points {side} the supervised run {reference.name} '
        f'({per_cent(reference.map50)} % at iteration {reference.step}, trained on '
        f'{reference.labels}{unequal}).'
    )


def _map50(material: Material, network: str, warnings: list[str]) -> float | None:
    try:
        return material.map50(network)
    except UserError as error:
        logged = material.log.last(material.logged_name(network, 'bbox_mAP_50'))
        if logged is None:
            warnings.append(f'The {network} could not be evaluated: {error}')
            return None
        warnings.append(
            f'The {network} could not be evaluated, so that its value is the last of the log, of '
            f'iteration {logged[0]}: {error}'
        )
        return logged[1]


def _unfinished(material: Material) -> list[str]:
    planned = material.planned_steps
    if planned is None or material.step >= planned or not material.step:
        return []
    return [
        f'The run is not finished: this is its checkpoint of iteration {material.step} of '
        f'{planned}; go on with --resume, then write the report anew.'
    ]


def _disagreement(material: Material, deployed: float | None) -> list[str]:
    logged = material.logged_map50(material.networks[0])
    if deployed is None or logged is None or abs(logged - deployed) <= _DISAGREEMENT:
        return []
    return [
        f'Training logged {per_cent(logged)} % for this checkpoint, and its evaluation for this '
        f'report gives {per_cent(deployed)} %: the validation images or the config are likely not '
        'those of the training any more.'
    ]


def _on_calibration(material: Material) -> list[str]:
    """How the teacher did on labelled images that were held out, and which checkpoint was best."""
    state = material.run.checkpoint.get(TEACHER_GUARD_STATE)
    return [f'Judged {TeacherRecord(**state).in_words}.'] if state else []


def _facts(material: Material) -> list[str]:
    config, log = material.config, material.log
    facts = [f'Checkpoint {material.run.checkpoint_path.name}, the last of the run.']
    if config.get('split'):
        facts.append(f'Labels: {config.split} of {config.get("data_root")}.')
    if log.training_seconds:
        facts.append(f'Training took {duration(log.training_seconds)}.')
    facts.append(
        'mAP@0.5 is the mean over the classes of the average precision at an overlap (IoU) of 0.5, '
        'on the validation images.'
    )
    return facts


def duration(seconds: float) -> str:
    """Returns a time in the unit that suits it."""
    if seconds < 120:
        return f'{seconds:.0f} seconds'
    if seconds < 7200:
        return f'{seconds / 60:.0f} minutes'
    return f'{seconds / 3600:.1f} hours'
