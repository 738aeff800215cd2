"""The runs of a benchmark: method by label fraction by seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mmengine.config import Config

from mmdsym.errors import UserError
from mmdsym.stages import StageSchedule
from mmdsym.training_length import follow_iterations, iterations_of


@dataclass(frozen=True)
class PlannedRun:
    """One training of the grid.

    Attributes:
        method: Name in tables and plots.
        config: Path of its training config.
        split: Folder of label files below ``annotations``, such as ``40pct_seed0``.
        fraction: Share of the training images that are labelled, in (0, 1].
        seed: Of everything random in the run.
        options: Settings that override the config's, by dotted name.
    """

    method: str
    config: Path
    split: str
    fraction: float
    seed: int
    options: Mapping[str, object] = field(default_factory=dict, hash=False)

    @property
    def name(self) -> str:
        """Name of its folder."""
        folder, _, _ = self.split.rpartition('_seed')
        return f'{self.method}_{folder}_seed{self.seed}'

    @property
    def overrides(self) -> dict[str, object]:
        """All settings that the run overrides."""
        return {**self.options, 'split': self.split, 'randomness.seed': self.seed}

    @cached_property
    def settings(self) -> Config:
        """The training config with all overrides, and the length that they ask for.

        Raises:
            UserError: There is no such config.
        """
        if not self.config.is_file():
            raise UserError(f'method {self.method} names the config {self.config}: there is none.')
        cfg = Config.fromfile(self.config)
        cfg.merge_from_dict(dict(self.overrides))
        follow_iterations(cfg)
        return cfg

    @property
    def labelled_images(self) -> int:
        """Labelled images that the run trains on, repetitions counted."""
        return _images(self.settings, ('labelled', 'calibration'))

    @property
    def all_images(self) -> int:
        """Images of all sources that the run trains on; its time is roughly in proportion."""
        return _images(self.settings, None)

    @property
    def iterations(self) -> int:
        """Iterations of the whole run."""
        return iterations_of(self.settings)

    def fingerprint(self) -> str:
        """Returns what changes when, and only when, settings or labels do."""
        content = hashlib.sha256(digest_of_settings(self.settings))
        annotations = Path(self.settings.data_root) / 'annotations'
        for path in [annotations / 'val.json', *sorted((annotations / self.split).glob('*.json'))]:
            content.update(path.read_bytes() if path.is_file() else b'')
        return content.hexdigest()[:16]


def digest_of_settings(cfg: Config, leave_out: Sequence[str] = ()) -> bytes:
    """Returns the sha256 of a config without its work folder, which does not change the training.

    Args:
        cfg: Of a training.
        leave_out: Further top-level settings that do not count.
    """
    without = {'work_dir', *leave_out}
    plain = {key: cfg[key] for key in cfg if key not in without}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=repr).encode()).digest()


def _images(cfg: Config, sources: Sequence[str] | None) -> int:
    train, loader = cfg.train_cfg, cfg.train_dataloader
    if train.get('stages'):
        return sum(
            (stage.end - stage.begin)
            * sum(n for name, n in stage.images.items() if sources is None or name in sources)
            for stage in StageSchedule(train.stages).stages
        )
    batch = loader.get('batch_size', 1)
    ratio = loader.sampler.get('source_ratio')
    if ratio and sources is not None:
        # MMDetection's semi-supervised sampler: labelled images come first.
        batch = round(batch * ratio[0] / sum(ratio))
    return batch * train.max_iters


# The paper's repository lists 324 labelled images of 1,620.
_PAPER_FRACTION = 0.2


class Preset:
    """What to compare, read from a file such as ``configs/benchmark/neu_cpu.py``.

    The file sets ``data_root``; ``methods``, each with its ``config`` (relative to the file) and
    optionally ``fractions``, ``seeds`` and ``options``; ``fractions`` and ``seeds`` where a method
    sets none; ``options`` for all; and optionally ``demo``, arguments of the generator of demo
    data, or ``prepare``, the command that prepares the data, to be shown where they are missing.
    ``labels_seed`` makes all runs learn from the labelled images of that seed, whatever their own.

    Args:
        path: The file.

    Raises:
        UserError: There is no such file, or it lacks something.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f'there is no preset {path}: see configs/benchmark/*.py.')
        self.path = path
        self._content = Config.fromfile(path)
        if not self._content.get('methods'):
            raise UserError(f'{path} names no methods: add methods = dict(NAME=dict(config=...)).')
        self.data_root: str | None = self._content.get('data_root')
        self.demo: dict | None = self._content.get('demo')
        self.prepare: str = self._content.get('prepare', 'python tools/prepare_dataset.py ...')

    def runs(
        self,
        data_root: str,
        fractions: Sequence[float] | None = None,
        seeds: Sequence[int] | None = None,
        methods: Sequence[str] | None = None,
        options: Mapping[str, object] | None = None,
        paper_labels: bool = False,
    ) -> list[PlannedRun]:
        """Returns the grid, fraction by fraction, so that comparable runs stand together.

        Args:
            data_root: Of the prepared data.
            fractions: In place of those of the preset.
            seeds: Likewise.
            methods: Names of those to run; all by default.
            options: Settings of all runs, by dotted name.
            paper_labels: Take the labelled images that the paper's authors published (20 %) in
                place of any fraction; seeds then differ in all but these images.

        Raises:
            UserError: An unknown method, or a fraction outside (0, 1].
        """
        known = list(self._content.methods)
        for name in methods or ():
            if name not in known:
                raise UserError(f"there is no method '{name}': use some of {', '.join(known)}.")
        for fraction in fractions or ():
            if not 0 < fraction <= 1:
                raise UserError(f'the label fraction {fraction:g} is outside (0, 1].')
        shared = {'data_root': data_root, **self._content.get('options', {})}
        labels_seed = self._content.get('labels_seed')
        planned = []
        for name in methods or known:
            method = self._content.methods[name]
            chosen = fractions or method.get('fractions') or self._content.fractions
            for fraction in [None] if paper_labels else chosen:
                for seed in seeds or method.get('seeds') or self._content.seeds:
                    planned.append(
                        PlannedRun(
                            method=name,
                            config=(self.path.parent / method.config).resolve(),
                            split=split_name(
                                fraction, seed if labels_seed is None else labels_seed
                            ),
                            fraction=_PAPER_FRACTION if fraction is None else fraction,
                            seed=seed,
                            options={**shared, **method.get('options', {}), **(options or {})},
                        )
                    )
        return sorted(planned, key=lambda run: (run.fraction, run.seed))

    def place(self, run: PlannedRun) -> tuple[float, int, int]:
        """Returns by what a run is sorted into the whole grid, whichever command asked for it."""
        return run.fraction, run.seed, list(self._content.methods).index(run.method)


def split_name(fraction: float | None, seed: int) -> str:
    """Returns the folder of label files that tools/prepare_dataset.py writes.

    Args:
        fraction: Share of labelled images; ``None`` for the paper's list, of which there is one.
        seed: Of the choice.
    """
    return 'paper_seed0' if fraction is None else f'{100 * fraction:g}pct_seed{seed}'


def same_method(runs: Sequence[PlannedRun]) -> list[str]:
    """Returns a sentence for each method that another one's settings equal."""
    seen: dict[str, str] = {}
    sentences = []
    for run in runs:
        first = seen.setdefault(run.fingerprint(), run.method)
        sentence = f'{run.method} and {first} have the same settings: comparing them says nothing.'
        if first != run.method and sentence not in sentences:
            sentences.append(sentence)
    return sentences


def labels_seen(runs: Sequence[PlannedRun]) -> list[str]:
    """Returns a sentence where methods do not train on equally many labelled images."""
    counts = {run.method: run.labelled_images for run in runs}
    if len(set(counts.values())) < 2:
        return []
    parts = ', '.join(f'{name} {count}' for name, count in counts.items())
    return [f'The methods train on unlike numbers of labelled images: {parts}.']
