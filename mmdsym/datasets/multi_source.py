"""One training set made of named sources, sampled as the stages say."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from mmengine.dataset import ConcatDataset
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from torch.utils.data import Sampler

from mmdsym.errors import UserError
from mmdsym.registry import DATA_SAMPLERS, DATASETS
from mmdsym.stages import SOURCES, StageSchedule


class SampleRequest(NamedTuple):
    """Which image to load, and the seed of its augmentation."""

    index: int
    seed: int


@DATASETS.register_module()
class MultiSourceDataset(ConcatDataset):
    """Labelled, calibration, synthetic and unlabelled images behind one index.

    Asked with a :class:`SampleRequest`, it seeds the augmentation of that sample, so that a run
    is the same whatever the number of workers and however often it was interrupted.

    Args:
        sources: Source name (one of ``labelled``, ``calibration``, ``synthetic`` and
            ``unlabelled``) to a dataset or its config. A source that is ``None`` is left out.

    Raises:
        UserError: A source has an unknown name, or another list of classes than the rest.
    """

    def __init__(self, sources: Mapping[str, dict | None]) -> None:
        for name in sources:
            if name not in SOURCES:
                raise UserError(
                    f"the training data has an unknown source '{name}': use {', '.join(SOURCES)}."
                )
        present = {
            name: MMENGINE_DATASETS.build(source) if isinstance(source, Mapping) else source
            for name, source in sources.items()
            if source is not None
        }
        self.source_names = tuple(present)
        classes = {name: dataset.metainfo.get('classes') for name, dataset in present.items()}
        first = self.source_names[0]
        for name, names in classes.items():
            if names != classes[first]:
                raise UserError(
                    f'the {name} images have the classes {names}, the {first} images '
                    f'{classes[first]}: prepare both in one go with tools/prepare_dataset.py.'
                )
        super().__init__(list(present.values()), ignore_keys=['dataset_type', 'task_name'])

    def source(self, name: str) -> torch.utils.data.Dataset:
        """Returns the dataset of the source called ``name``."""
        return self.datasets[self.source_names.index(name)]

    def source_range(self, name: str) -> tuple[int, int]:
        """Returns the first index of a source and the index behind its last; (0, 0) if absent."""
        if name not in self.source_names:
            return 0, 0
        position = self.source_names.index(name)
        begin = self.cumulative_sizes[position - 1] if position else 0
        return begin, self.cumulative_sizes[position]

    def __getitem__(self, request: SampleRequest | int) -> dict:
        if isinstance(request, SampleRequest):
            random.seed(request.seed)
            np.random.seed(request.seed % 2**32)
            torch.manual_seed(request.seed)
            request = request.index
        return super().__getitem__(request)


@DATA_SAMPLERS.register_module()
class StagedSampler(Sampler):
    """Draws each batch from the sources that its stage declares.

    What iteration ``i`` gets depends on ``i``, the seed and the rank alone: a resumed run goes
    on with the very batch that an uninterrupted one would see, and no image is read that a
    stage does not use. Each source is permuted anew for each pass over it, and the ranks share
    one permutation, so no image comes twice before all came once.

    Args:
        dataset: The training set with its sources.
        seed: Seed of the permutations; by default one that all ranks share.
    """

    def __init__(self, dataset: MultiSourceDataset, seed: int | None = None) -> None:
        self.dataset = dataset
        self.rank, self.world_size = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        self.schedule: StageSchedule | None = None
        self.first_iteration = 0
        self._permutations: dict[str, tuple[int, np.ndarray]] = {}

    def follow(self, schedule: StageSchedule, first_iteration: int = 0) -> None:
        """Declares the stages to follow and the iteration of the next batch.

        Raises:
            UserError: A stage uses a source that the dataset lacks or that is empty.
        """
        for stage in schedule.stages:
            for source, count in stage.images.items():
                begin, end = self.dataset.source_range(source)
                if count and begin == end:
                    raise UserError(
                        f"stage '{stage.name}' wants {count} {source} images in a batch, but "
                        f'there are none: give train_dataloader.dataset.sources.{source} some '
                        f'images, or set images.{source} of the stage to 0.'
                    )
        self.schedule = schedule
        self.first_iteration = first_iteration

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        if self.schedule is None:
            raise UserError(
                'StagedSampler has no stages: use it with train_cfg type mmdsym.StagedTrainLoop.'
            )
        for iteration in range(self.first_iteration, self.schedule.max_iters):
            yield self.batch(iteration)

    def __len__(self) -> int:
        return self.schedule.max_iters if self.schedule else 0

    def batch(self, iteration: int) -> list[SampleRequest]:
        """Returns the samples that this rank gets at ``iteration``."""
        stage = self.schedule.at(iteration)
        requests = []
        for source in SOURCES:
            for slot in range(stage.images.get(source, 0)):
                position = self._served_before(source, iteration)
                position += self.rank * stage.images[source] + slot
                seed = np.random.SeedSequence(
                    (self.seed, iteration, self.rank, SOURCES.index(source), slot)
                ).generate_state(1)[0]
                requests.append(SampleRequest(self._index(source, position), int(seed)))
        return requests

    def _served_before(self, source: str, iteration: int) -> int:
        """Images of a source that all ranks together got before ``iteration``."""
        iterations = 0
        for stage in self.schedule.stages:
            steps = max(0, min(iteration, stage.end) - stage.begin)
            iterations += steps * stage.images.get(source, 0)
        return iterations * self.world_size

    def _index(self, source: str, position: int) -> int:
        begin, end = self.dataset.source_range(source)
        passes, offset = divmod(position, end - begin)
        cached = self._permutations.get(source)
        if cached is None or cached[0] != passes:
            generator = np.random.default_rng((self.seed, SOURCES.index(source), passes))
            cached = (passes, generator.permutation(end - begin))
            self._permutations[source] = cached
        return begin + int(cached[1][offset])


@DATA_SAMPLERS.register_module()
class StagedBatchSampler(Sampler):
    """Hands on the batches of a :class:`StagedSampler`, whose sizes differ from stage to stage.

    Args:
        sampler: The sampler that makes the batches.
        batch_size: Not used, since the stages say how many images a batch has; MMEngine passes
            it.
    """

    def __init__(self, sampler: StagedSampler, batch_size: int = 1) -> None:
        if not isinstance(sampler, StagedSampler):
            raise UserError('StagedBatchSampler needs sampler=dict(type="mmdsym.StagedSampler").')
        self.sampler = sampler

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        return iter(self.sampler)

    def __len__(self) -> int:
        return len(self.sampler)
