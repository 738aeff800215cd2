"""Makes the cache of synthetic images, or finds it."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmengine.logging import print_log
from tqdm import tqdm

from mmdsym.errors import UserError

from .accept import AcceptanceTest
from .cache import SynthesisCache
from .cache_key import CacheKey
from .file_lock import locked
from .isolation import isolated_randomness
from .labelled_images import LabelledImages
from .layout import LayoutPlanner
from .layout_config import LayoutConfig
from .painting import Painter
from .synthesiser import ChecksImages, Synthesiser

_FAULTS_NAMED = 3
# A class that loses more of its regions is learned from noticeably less than the layout says.
_LARGEST_GIVEN_UP = 0.2


@dataclass(frozen=True)
class SynthesisReport:
    """Where the synthetic images are, and what became of their regions.

    Attributes:
        folder: The cache.
        annotation_file: Its COCO file.
        image_folder: Its images.
        images: How many.
        outcomes: Class name to its counts, see :func:`.cache_manifest.count_outcomes`.
        painted_now: Regions that were painted now, not found.
        seconds: How long that took.
    """

    folder: Path
    annotation_file: Path
    image_folder: Path
    images: int
    outcomes: Mapping[str, Mapping[str, int]]
    painted_now: int = 0
    seconds: float = 0.0

    @property
    def rejected_share(self) -> float:
        """Share of all attempts that the acceptance test turned down, in [0, 1]."""
        attempts = sum(counts['attempts'] for counts in self.outcomes.values())
        return sum(counts['rejected'] for counts in self.outcomes.values()) / max(1, attempts)

    def rejections(self) -> str:
        """Says in one line how much was rejected and given up, per class."""
        shares = [
            f'{name} {counts["rejected"] / counts["attempts"]:.0%} '
            f'({counts["given_up"]} of {counts["regions"]} given up)'
            for name, counts in self.outcomes.items()
        ]
        return f'Rejected attempts: {self.rejected_share:.1%}; {", ".join(shares)}.'

    def losses(self) -> str | None:
        """Says in one sentence which classes lost many regions; ``None`` where none did."""
        lost = [
            f'{name} {counts["given_up"]} of {counts["regions"]}'
            for name, counts in self.outcomes.items()
            if counts['given_up'] > _LARGEST_GIVEN_UP * counts['regions']
        ]
        if not lost:
            return None
        regions, given_up = (
            sum(counts[name] for counts in self.outcomes.values())
            for name in ('regions', 'given_up')
        )
        return (
            f'Synthetic images: for {given_up} of {regions} regions no attempt was accepted, most '
            f'often of {", ".join(lost)}; a labelled defect that was to be repainted stayed as it '
            'was, a new one was left out; to lose fewer, train the model that paints for longer, '
            'lower strength of the layout, or raise max_attempts.'
        )


class Synthesis:
    """Everything that determines a set of synthetic images, and how to make it.

    Args:
        labelled: What it is made from.
        synthesiser: Paints the defects.
        layout: What is painted where.
        count: Number of images, from 1.
        seed: Of all random choices, from 0.
        accept: Judges each painted region; ``None`` takes all.
        max_attempts: Attempts for each region, from 1.
        batch_size: Regions painted at once; changes nothing but speed and memory.

    Raises:
        UserError: A number is out of range.
    """

    def __init__(
        self,
        labelled: LabelledImages,
        synthesiser: Synthesiser,
        layout: LayoutConfig,
        count: int,
        seed: int = 0,
        accept: AcceptanceTest | None = None,
        max_attempts: int = 3,
        batch_size: int = 16,
    ) -> None:
        for name, value, least in (
            ('count', count, 1),
            ('seed', seed, 0),
            ('max_attempts', max_attempts, 1),
            ('batch_size', batch_size, 1),
        ):
            if not isinstance(value, int) or value < least:
                raise UserError(
                    f'{name} of the synthetic images is {value}: give a whole number from {least}.'
                )
        self.labelled = labelled
        self.synthesiser = synthesiser
        self.layout = layout
        self.count = count
        self.seed = seed
        self.key = CacheKey(
            dict(
                labels=labelled.labels_digest,
                images=labelled.pixels_digest,
                layout=layout.to_dict(),
                count=count,
                seed=seed,
                synthesiser=synthesiser.fingerprint,
                # Without a test there is one attempt, whatever the limit.
                accept=None if accept is None else [accept.fingerprint, max_attempts],
            )
        )
        self.painter = Painter(labelled, synthesiser, accept, seed, max_attempts, batch_size)

    def make_or_find(self, cache_dir: str | Path) -> SynthesisReport:
        """Returns the finished cache in ``cache_dir``, made, continued or mended as needed.

        Raises:
            UserError: It cannot be written, or the synthesiser cannot paint into such images.
        """
        cache = SynthesisCache(cache_dir, self.key, self.count)
        with locked(cache.lock_file), isolated_randomness():
            cache.clear_up()
            faults = cache.faults()
            if faults == {}:
                print_log(
                    f'Synthetic images: found {self.count} in {cache.folder}.', logger='current'
                )
                return _tell_losses(self._report(cache))
            if faults:
                _tell_faults(cache, faults)
            return self._make(cache)

    def _make(self, cache: SynthesisCache) -> SynthesisReport:
        if isinstance(self.synthesiser, ChecksImages):
            self.synthesiser.check_images(self.labelled)
        begin = time.monotonic()
        layouts = LayoutPlanner(self.labelled, self.layout, self.seed).plan_all(self.count)
        records = cache.intact_images(layouts, self.labelled)
        _tell_beginning(cache, len(records))
        missing = [layout for layout in layouts if layout.index not in records]
        regions = sum(len(layout.operations) for layout in missing)
        # A log file need not see each step.
        interval = 0.5 if sys.stderr.isatty() else 30
        with tqdm(total=regions, desc='synthesis', unit='region', mininterval=interval) as bar:
            for image in self.painter.paint(missing):
                records[image.index] = cache.add(image)
                bar.update(len(image.outcomes))
        cache.finish(records, self.labelled)
        report = self._report(cache, regions, time.monotonic() - begin)
        print_log(
            f'Synthetic images: {self.count} are in {cache.folder}. {report.rejections()}',
            logger='current',
        )
        return _tell_losses(report)

    def _report(
        self, cache: SynthesisCache, painted_now: int = 0, seconds: float = 0.0
    ) -> SynthesisReport:
        return SynthesisReport(
            folder=cache.folder,
            annotation_file=cache.annotation_file,
            image_folder=cache.folder / 'images',
            images=self.count,
            outcomes=cache.manifest()['outcomes'],
            painted_now=painted_now,
            seconds=seconds,
        )


def _tell_losses(report: SynthesisReport) -> SynthesisReport:
    losses = report.losses()
    if losses:
        print_log(losses, logger='current', level=logging.WARNING)
    return report


def _tell_faults(cache: SynthesisCache, faults: Mapping[str, str]) -> None:
    named = [f'{name} {fault}' for name, fault in list(faults.items())[:_FAULTS_NAMED]]
    rest = len(faults) - len(named)
    more = f' and {rest} more' if rest else ''
    print_log(
        f'Synthetic images: {cache.folder} is damaged ({"; ".join(named)}{more}), so that this '
        'part is made anew.',
        logger='current',
        level=logging.WARNING,
    )


def _tell_beginning(cache: SynthesisCache, done: int) -> None:
    if done:
        line = f'goes on in {cache.folder} with {done} of {cache.count} there'
    else:
        line = f'makes {cache.count} in {cache.folder}'
        sibling = cache.nearest_sibling()
        if sibling:
            line += f'; {sibling[0].name} is not used, since it has other {", ".join(sibling[1])}'
    print_log(f'Synthetic images: {line}.', logger='current')
