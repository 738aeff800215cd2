"""Synthetic images as a data set."""

from __future__ import annotations

from collections.abc import Mapping

from mmdsym.datasets import DefectDataset
from mmdsym.registry import ACCEPTANCE_TESTS, DATASETS, SYNTHESISERS

from .accept import AcceptanceTest
from .building import build_part
from .first_rank import from_first_rank
from .isolation import isolated_randomness
from .labelled_images import read_labelled_images
from .layout_config import LayoutConfig, parse_layout
from .synthesis import Synthesis, SynthesisReport
from .synthesiser import Synthesiser


@DATASETS.register_module()
class DiffusionSynthesisDataset(DefectDataset):
    """Synthetic images made from a labelled data set, kept in a cache and served from there.

    The first use makes the cache, on rank 0 while other ranks wait; from then on it is found,
    unless something that determines it has changed. To serve an image costs what it costs to
    serve a labelled one.

    Args:
        dataset: Config of the labelled data set; its pipeline is not used.
        synthesiser: Config of what paints, from ``SYNTHESISERS``.
        cache_dir: Folder of the caches; each key has its own below it.
        count: Number of synthetic images.
        layout: Settings of :class:`mmdsym.diffusion.layout_config.LayoutConfig`.
        seed: Of all random choices.
        accept: Config of the acceptance test, from ``ACCEPTANCE_TESTS``; ``None`` takes all.
        max_attempts: How often a rejected region is painted.
        batch_size: Regions painted at once; changes nothing but speed and memory.
        pipeline: Transforms of the synthetic images.
        **kwargs: As in :class:`mmdsym.DefectDataset`.

    Attributes:
        synthesis: Where the images are and what became of their regions.

    Raises:
        UserError: Something is missing or out of range, or the cache cannot be written.
    """

    def __init__(
        self,
        dataset: Mapping,
        synthesiser: Mapping | Synthesiser,
        cache_dir: str,
        count: int = 500,
        layout: Mapping | None = None,
        seed: int = 0,
        accept: Mapping | AcceptanceTest | None = None,
        max_attempts: int = 3,
        batch_size: int = 16,
        pipeline: list | tuple = (),
        **kwargs,
    ) -> None:
        settings = parse_layout(layout)

        def make_or_find() -> SynthesisReport:
            return _make_or_find(
                dataset,
                synthesiser,
                accept,
                cache_dir,
                layout=settings,
                count=count,
                seed=seed,
                max_attempts=max_attempts,
                batch_size=batch_size,
            )

        self.synthesis: SynthesisReport = from_first_rank(make_or_find)
        super().__init__(
            ann_file=str(self.synthesis.annotation_file),
            data_prefix=dict(img=f'{self.synthesis.image_folder}/'),
            pipeline=list(pipeline),
            **kwargs,
        )


def _make_or_find(
    dataset: Mapping,
    synthesiser: Mapping | Synthesiser,
    accept: Mapping | AcceptanceTest | None,
    cache_dir: str,
    layout: LayoutConfig,
    **settings: int,
) -> SynthesisReport:
    # Building a network draws random numbers too.
    with isolated_randomness():
        labelled = read_labelled_images(dataset)
        if isinstance(synthesiser, Mapping):
            synthesiser = build_part(SYNTHESISERS, synthesiser, labelled.classes)
        if isinstance(accept, Mapping):
            accept = build_part(ACCEPTANCE_TESTS, accept, labelled.classes)
        synthesis = Synthesis(labelled, synthesiser, layout, accept=accept, **settings)
        return synthesis.make_or_find(cache_dir)
