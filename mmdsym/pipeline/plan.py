"""What a command would do: steps, their states, places and durations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from terminaltables import AsciiTable

from mmdsym.config import walk
from mmdsym.errors import UserError
from mmdsym.stages import StageSchedule
from mmdsym.trained_run import RESULTS_NAME, dataset_for_testing

from . import estimates
from .after_training import EXPORT_FOLDER, Finishing, parse_after_training
from .estimates import NOTHING, Estimate
from .part_making import state_of
from .parts import Part, declared_parts
from .progress import iterations_done, latest_checkpoint
from .run_record import RunRecord

_SYNTHESIS = 'DiffusionSynthesisDataset'


@dataclass(frozen=True)
class Step:
    """A row of the plan.

    Attributes:
        name: What is made.
        state: Whether it is there.
        where: Its place.
        estimate: What is left to do.
    """

    name: str
    state: str
    where: str
    estimate: Estimate = NOTHING


def make_plan(cfg: Config, record: RunRecord, after_stages: Sequence[Step] = ()) -> list[Step]:
    """Looks at all that a completed config needs and makes; writes nothing.

    Args:
        cfg: The completed config, with its work folder.
        record: Of the run in the work folder.
        after_stages: What else is done between training and what follows it.

    Raises:
        UserError: Something in the config or the data is wrong.
    """
    parts = declared_parts(cfg)
    steps = [_part_step(part, cfg) for part in parts]
    all_there = all(step.state == 'there' for step in steps)
    return [
        *steps,
        *_synthesis_steps(cfg, all_there),
        *_prototype_steps(cfg, all_there),
        *_stage_steps(cfg, record),
        *after_stages,
        *_steps_after(cfg, record),
    ]


def as_table(steps: Sequence[Step]) -> str:
    """Returns the plan as a table, with the sum of all durations that are known."""
    rows = [['step', 'state', 'where', 'time left', 'based on']]
    for step in steps:
        estimate = step.estimate
        rows.append([step.name, step.state, step.where, _duration(estimate), estimate.basis])
    known = [step.estimate.seconds for step in steps if step.estimate.seconds is not None]
    unknown = len(steps) - len(known)
    total = f'Time left in all: about {_duration(Estimate(sum(known)))}'
    missing = f', besides what is unknown ({unknown} of {len(steps)} steps)' if unknown else ''
    return f'{AsciiTable(rows).table}\n{total}{missing}.'


def _part_step(part: Part, cfg: Config) -> Step:
    state = state_of(part)
    if state.there:
        return Step(part.title, state.word, str(part.folder))
    left = estimates.of_part(part, cfg, part.max_iters - state.iteration)
    word = state.word
    if word == 'unfinished':
        word = f'unfinished ({state.iteration} of {part.max_iters})'
    return Step(part.title, word, str(part.folder), left)


def _synthesis_steps(cfg: Config, parts_are_there: bool) -> Iterator[Step]:
    entries = list(walk(cfg.get('train_dataloader') or {}))
    found = [e for e in entries if str(e.get('type', '')).split('.')[-1] == _SYNTHESIS]
    for synthetic in found[:1]:
        state, where = 'missing', str(synthetic.cache_dir)
        if parts_are_there:
            # Imported late: it builds the models in order to know their fingerprints.
            from .synthesis_state import find_cache
            from .synthesis_state import state_of as state_of_cache

            cache = find_cache(cfg, synthetic)
            state, where = state_of_cache(cache), str(cache.folder)
        regions = synthetic.get('count', 0) * _defects_per_image(synthetic)
        left = NOTHING if state == 'there' else estimates.of_regions(cfg, regions)
        yield Step('synthetic images', state, where, left)


def _defects_per_image(synthetic: dict) -> float:
    low, high = (synthetic.get('layout') or {}).get('defects_per_image', (1, 1))
    return (low + high) / 2


def _prototype_steps(cfg: Config, parts_are_there: bool) -> Iterator[Step]:
    for entry in walk(cfg.get('custom_hooks') or []):
        if isinstance(entry.get('prototypes'), dict):
            state = 'looked up when the training starts' if parts_are_there else 'missing'
            yield Step('CLIP prototypes', state, str(entry.prototypes.get('cache_dir')), Estimate())


def _stage_steps(cfg: Config, record: RunRecord) -> Iterator[Step]:
    stages = (cfg.get('train_cfg') or {}).get('stages')
    done, where = iterations_done(Path(cfg.work_dir)), str(cfg.work_dir)
    if stages is None:
        total = (cfg.get('train_cfg') or {}).get('max_iters')
        state = f'iteration {done} of {total or "?"}' if done else 'missing'
        left = Estimate()
        if total is not None:
            left = estimates.of_training(cfg, record.settings, total - done)
        yield Step('training', 'there' if done and done == total else state, where, left)
        return
    for stage in StageSchedule(stages).stages:
        begun = max(done, stage.begin)
        if done >= stage.end:
            yield Step(f'stage {stage.name}', 'there', where)
            continue
        state = 'missing' if begun == stage.begin else f'unfinished ({begun} of {stage.end})'
        left = estimates.of_stage(stage, cfg, record.settings, stage.end - begun)
        yield Step(f'stage {stage.name}', state, where, left)


def _steps_after(cfg: Config, record: RunRecord) -> Iterator[Step]:
    wanted = parse_after_training(cfg)
    work_dir = Path(cfg.work_dir)
    finishing = None
    if latest_checkpoint(work_dir) is not None:
        finishing = Finishing(cfg, record)
    images = _test_images(cfg) if wanted.test else 0
    about = dict(
        test=(
            f'test of {" and ".join(wanted.test)}',
            work_dir / RESULTS_NAME,
            estimates.of_test(cfg, images * len(wanted.test)),
        ),
        export=(f'export of the {wanted.export}', work_dir / EXPORT_FOLDER, Estimate()),
        report=('report', work_dir, Estimate()),
    )
    for step in wanted.steps:
        name, where, left = about[step]
        if finishing is not None and finishing.is_done(step):
            yield Step(name, 'there', finishing.where(step))
        else:
            yield Step(name, 'missing', str(where), left)


def _test_images(cfg: Config) -> int:
    dataset = dataset_for_testing(cfg)
    path = Path(dataset.get('data_root') or '') / dataset['ann_file']
    try:
        return len(json.loads(path.read_bytes())['images'])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f'{path} cannot be read as COCO annotations: prepare the data again.'
        ) from None


def _duration(estimate: Estimate) -> str:
    seconds = estimate.seconds
    if seconds is None:
        return 'unknown'
    if not seconds:
        return '-'
    if seconds < 90:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} min' if seconds < 5400 else f'{seconds / 3600:.1f} h'
