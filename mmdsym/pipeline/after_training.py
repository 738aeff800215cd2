"""What follows a training: test both networks, export the plain detector, write the report."""

from __future__ import annotations

import hashlib
import importlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mmengine.config import Config

from mmdsym.atomic_file import as_json, write_file
from mmdsym.command_line import build_runner
from mmdsym.diffusion.first_rank import from_first_rank
from mmdsym.errors import UserError
from mmdsym.trained_run import (
    BASELINE_FOLDER,
    RESULTS_NAME,
    TrainedRun,
    dataset_for_testing,
    load_run,
)

from .contents import digest_of_test_set
from .own_config import own_config
from .progress import latest_checkpoint
from .run_record import RunRecord

EXPORT_FOLDER = 'detector'


@dataclass(frozen=True)
class AfterTraining:
    """What a config wants done after training; see :func:`parse_after_training`.

    Attributes:
        test: Networks to test: ``teacher``, ``student``, or ``detector`` where there is but one.
        export: The network to export; ``None`` for none.
        report: Whether to write the report.
    """

    test: tuple[str, ...] = ()
    export: str | None = None
    report: bool = False

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps that are to be done, in order."""
        wanted = dict(test=self.test, export=self.export, report=self.report)
        return tuple(step for step, is_wanted in wanted.items() if is_wanted)


def parse_after_training(cfg: Config) -> AfterTraining:
    """Reads ``after_training = dict(test=..., export=..., report=...)``; what is left out is off.

    Raises:
        UserError: A key or a network is unknown.
    """
    settings = dict(cfg.get('after_training') or {})
    for key in settings:
        if key not in AfterTraining.__dataclass_fields__:
            known = ', '.join(AfterTraining.__dataclass_fields__)
            raise UserError(f"after_training has an unknown '{key}': known are {known}.")
    test, export = settings.get('test') or (), settings.get('export') or None
    test = (test,) if isinstance(test, str) else tuple(test)
    networks = ('teacher', 'student') if 'detector' in cfg.model else ('detector',)
    for network in (*test, *([export] if export else ())):
        if network not in networks:
            raise UserError(
                f"after_training names a network '{network}': this config trains "
                f'{" and ".join(networks)}.'
            )
    return AfterTraining(test, export, bool(settings.get('report')))


class Finishing:
    """Does, once, what is wanted after training.

    Each result belongs to a checkpoint and to the annotations of the test images; where both are
    those of the record, and its files are left, it is reused.

    Args:
        cfg: The completed config of the run.
        record: The run's record; what is done is written into it.

    Raises:
        UserError: There is no checkpoint, or it cannot be read.
    """

    def __init__(self, cfg: Config, record: RunRecord) -> None:
        self.work_dir = Path(cfg.work_dir)
        self.launcher = cfg.get('launcher', 'none')
        self.wanted = parse_after_training(cfg)
        self.record = record
        self.config_path = own_config(cfg, self.work_dir)
        self.on = _tested_on(cfg, self.work_dir)

    def is_done(self, step: str) -> bool:
        """Says whether a step's result is there."""
        return self.record.is_done(step, self._on(step))

    def where(self, step: str) -> str:
        """Says where the result of a step is that was done."""
        return ', '.join(self.record.steps[step]['files'])

    def do(self, step: str) -> list[str]:
        """Does a step; all ranks must call it.

        Returns:
            Lines that say what came out.

        Raises:
            UserError: It failed; a failure of the report alone is told in a line instead.
        """
        work: Callable[[], tuple[list[Path], list[str]]] = getattr(self, f'_{step}')
        # All ranks share the test images; the rest is the work of one.
        files, lines = work() if step == 'test' else from_first_rank(work)
        if files:
            done = dict(on=self._on(step), files=[str(path) for path in files])
            self.record.steps[step] = done
            from_first_rank(partial(self.record.write, self.work_dir))
        return lines

    def _on(self, step: str) -> dict[str, str]:
        """What a step's result follows from."""
        if step == 'test':
            return {**self.on, 'networks': ' '.join(self.wanted.test)}
        if step == 'export':
            return {'checkpoint': self.on['checkpoint'], 'network': self.wanted.export or ''}
        baseline = self.work_dir / BASELINE_FOLDER / RESULTS_NAME
        if baseline.is_file():
            return {**self.on, 'baseline': hashlib.sha256(baseline.read_bytes()).hexdigest()}
        return self.on

    def _load(self) -> TrainedRun:
        return load_run(self.work_dir, self.config_path)

    def _test(self) -> tuple[list[Path], list[str]]:
        run = self._load()
        metrics = {network: test(run, network, self.launcher) for network in self.wanted.test}
        results = dict(
            checkpoint=run.checkpoint_path.name,
            iteration=int(run.checkpoint.get('meta', {}).get('iter', 0)),
            images=str(dataset_for_testing(run.config)['ann_file']),
            metrics=metrics,
        )
        path = self.work_dir / RESULTS_NAME
        from_first_rank(partial(write_file, path, as_json(results).encode()))
        return [path], [_in_words(network, found) for network, found in metrics.items()]

    def _export(self) -> tuple[list[Path], list[str]]:
        # Imported late: it builds on all of mmdet.
        from mmdsym.export import export_detector

        folder = self.work_dir / EXPORT_FOLDER
        # What it would replace there is an export of this run too.
        exported = export_detector(self._load(), folder, self.wanted.export, force=True)
        files = [exported.config_path, exported.checkpoint_path]
        return files, [f"init_detector('{files[0]}', '{files[1]}') loads it"]

    def _report(self) -> tuple[list[Path], list[str]]:
        # A report that fails, in whatever way, must not take the run with it.
        try:
            report = importlib.import_module('mmdsym.report')
            path = report.write_report(self.work_dir, config=self.config_path)
        except Exception as error:  # noqa: BLE001
            return [], [
                f'the report could not be written ({type(error).__name__}: {error}); the run is '
                'complete, and the same command tries again.'
            ]
        return [Path(path)], []


def test(run: TrainedRun, network: str, launcher: str = 'none') -> dict[str, float]:
    """Returns the metrics of one network on the test images of a run's config.

    Args:
        run: The run.
        network: ``teacher``, ``student`` or, of a plain detector, ``detector``.
        launcher: As in MMEngine's configs.
    """
    cfg = run.config.copy()
    cfg.load_from, cfg.resume, cfg.launcher = str(run.checkpoint_path), False, launcher
    # Only the results are of interest, not the config and the progress once more.
    cfg.log_level = 'WARNING'
    if run.is_pair:
        cfg.model.semi_test_cfg = dict(predict_on=network)
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        cfg.experiment_name = f'{run.config_path.stem}_{network}_{Path(folder).name}'
        # A visualizer of its own: one that writes into the folder of the run before would fail.
        cfg.visualizer = dict(type='Visualizer', name=cfg.experiment_name)
        metrics = build_runner(cfg).test()
    return {name: round(float(value), 4) for name, value in metrics.items()}


def _tested_on(cfg: Config, work_dir: Path) -> dict[str, str]:
    checkpoint = latest_checkpoint(work_dir)
    if checkpoint is None:
        raise UserError(f'{work_dir} holds no checkpoint: train first.')
    return {
        'checkpoint': hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        'images': digest_of_test_set(cfg),
    }


def _in_words(network: str, metrics: Mapping[str, float]) -> str:
    of_class = ', '.join(
        f'{name.removeprefix("coco/AP50/")} {value:.3f}'
        for name, value in metrics.items()
        if name.startswith('coco/AP50/')
    )
    whole = ', '.join(
        f'{title} {metrics[name]:.3f}'
        for title, name in (('mAP@0.5', 'coco/bbox_mAP_50'), ('mAP', 'coco/bbox_mAP'))
        if name in metrics
    )
    return f'{network}: {whole}' + (f' ({of_class})' if of_class else '')
