"""All that the sections of a report draw from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mmengine import Config

from mmdsym.config import walk
from mmdsym.run_log import RunLog
from mmdsym.stages import Stage, StageSchedule
from mmdsym.trained_run import TrainedRun
from mmdsym.visualization.detections import thresholds_of

from .predictions import (
    ValidationData,
    encode_predictions,
    open_validation_data,
    origin,
    predict,
    read_predictions,
)
from .quality import Accuracy, Matches, match_boxes, measure_accuracy
from .reference import Reference


@dataclass
class Material:
    """A run, its log, and what its last checkpoint finds.

    What takes time is done when it is asked for, and once.

    Attributes:
        run: Config and checkpoint.
        work_dir: Where the run left its logs.
        log: Its scalars.
        reference: A supervised run to compare with, if one is known.
        earlier: Folder of an earlier report, whose predictions may serve again.
        predictions: File name to content of the predictions made or reused so far.
    """

    run: TrainedRun
    work_dir: Path
    log: RunLog
    reference: Reference | None = None
    earlier: Path | None = None
    predictions: dict[str, bytes] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        """The completed config of the run."""
        return self.run.config

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return self.run.classes

    @property
    def networks(self) -> tuple[str, ...]:
        """``('teacher', 'student')``, or ``('detector',)``; the first is the one to deploy."""
        return ('teacher', 'student') if self.run.is_pair else ('detector',)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The declared stages; empty for a run without."""
        declared = (self.config.get('train_cfg') or {}).get('stages')
        return StageSchedule(declared).stages if declared else ()

    @property
    def step(self) -> int:
        """Iteration of the checkpoint; 0 where it does not say."""
        return int((self.run.checkpoint.get('meta') or {}).get('iter') or 0)

    @property
    def planned_steps(self) -> int | None:
        """Iterations that the config asks for; None where it counts epochs."""
        if self.stages:
            return self.stages[-1].end
        return (self.config.get('train_cfg') or {}).get('max_iters')

    @property
    def last_step(self) -> int:
        """Where plots over iterations end."""
        return max(self.log.last_step, self.step, 1)

    def logged_name(self, network: str, metric: str) -> str:
        """Returns the name of a metric in the log, such as ``teacher/coco/bbox_mAP_50``."""
        return f'{network}/coco/{metric}' if self.run.is_pair else f'coco/{metric}'

    def hook(self, name: str) -> dict | None:
        """Returns the settings of a hook of the run by the name of its class."""
        for entry in walk(self.config.get('custom_hooks') or []):
            if str(entry.get('type', '')).split('.')[-1] == name:
                return entry
        return None

    @cached_property
    def data(self) -> ValidationData:
        """The validation images.

        Raises:
            UserError: They are not there.
        """
        return open_validation_data(self.run)

    @cached_property
    def results(self) -> list[dict]:
        """What the network to deploy finds on them."""
        return self._predict(self.networks[0])

    @cached_property
    def accuracy(self) -> Accuracy:
        """Average precision of the network to deploy."""
        return measure_accuracy(self.data, self.results)

    @cached_property
    def thresholds(self) -> list[float]:
        """Score of each class from which boxes are shown and counted."""
        return thresholds_of(self.run).tolist()

    @cached_property
    def matches(self) -> Matches:
        """Detections from these scores on, paired with true boxes."""
        return match_boxes(self.data, self.results, self.thresholds)

    def map50(self, network: str) -> float:
        """Returns the mAP@0.5 of a network: logged for this very checkpoint, or else measured.

        Raises:
            UserError: It was not logged, and the validation images are not there.
        """
        if network == self.networks[0]:
            return self.accuracy.map50
        logged = self.logged_map50(network)
        if logged is not None:
            return logged
        return measure_accuracy(self.data, self._predict(network)).map50

    def logged_map50(self, network: str) -> float | None:
        """Returns the mAP@0.5 that the log gives for this very checkpoint, if it does."""
        return self.log.of(self.logged_name(network, 'bbox_mAP_50')).get(self.step)

    def _predict(self, network: str) -> list[dict]:
        name = f'predictions_{network}.json'
        made_from = origin(self.run, network, self.data)
        results = None
        if self.earlier is not None:
            results = read_predictions(self.earlier / name, made_from)
        if results is None:
            results = predict(self.run, network, self.data)
        self.predictions[name] = encode_predictions(results, made_from)
        return results
