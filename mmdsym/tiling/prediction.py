"""What a tiled detector finds on all images, as one document."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from mmdsym.atomic_file import as_json, write_file
from mmdsym.errors import UserError
from mmdsym.tiling.detections import Detections, evaluate
from mmdsym.tiling.grid import Tiling
from mmdsym.tiling.tiled_detector import Merging, TiledDetector
from mmdsym.tiling.whole_images import WholeImages
from mmdsym.trained_run import TrainedRun


@dataclass(frozen=True)
class TiledPrediction:
    """How a run is used on large images.

    Args:
        run: From :func:`mmdsym.trained_run.load_run`.
        tiling: Where tiles lie; None shows the detector each image as a whole.
        merging: What becomes of boxes that several tiles found.
        which: `'teacher'` or `'student'`; without meaning for a plain detector.
        with_whole: Whether the whole image is looked at besides tiles.
        long_side: Pixels to which the longer side of what the detector sees is scaled; by default
            what the run's test pipeline says.
        least_score: Boxes with a lower score are dropped, in [0, 1].
        show_from_score: Of each class, likewise, after merging; by default no more are dropped.

    Raises:
        UserError: The score is out of its range.
    """

    run: TrainedRun
    tiling: Tiling | None
    merging: Merging = Merging()
    which: str = 'teacher'
    with_whole: bool = False
    long_side: int | None = None
    least_score: float = 0.05
    show_from_score: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.least_score <= 1:
            raise UserError(f'a score of {self.least_score:g} is outside [0, 1]; give 0.05.')

    def run_on(self, images: WholeImages) -> dict:
        """Predicts on all images.

        Returns:
            A COCO document whose annotations have scores, boxes in pixels of the whole images,
            with `settings`, seconds for an image, and `metrics` where the truth is known.

        Raises:
            UserError: An image cannot be read, or the run is not complete.
        """
        detector = TiledDetector(self.run, self.which, self.least_score, self.long_side)
        category_ids = [category['id'] for category in images.categories]
        found: dict[int, Detections] = {}
        began, worked = time.monotonic(), time.process_time()
        for entry in tqdm(images.images, desc='detecting', unit='image', disable=None):
            found[entry['id']] = self._detect(detector, images.path(entry))
        count = max(len(found), 1)
        seconds = (time.monotonic() - began) / count
        # Beside other programs the wall clock says more of them than of the detector.
        of_processor = (time.process_time() - worked) / count
        document = {
            'settings': self._settings(),
            'seconds_per_image': round(seconds, 2),
            'processor_seconds_per_image': round(of_processor, 2),
            'images': images.images,
            'categories': images.categories,
            'annotations': [
                row for number, one in found.items() for row in one.as_coco(number, category_ids)
            ],
        }
        if images.annotations is not None:
            document['metrics'] = evaluate(found, images.annotations, detector.classes)
        return document

    def _detect(self, detector: TiledDetector, path: Path) -> Detections:
        if self.tiling is None:
            found = detector.on_whole(path)
        else:
            found = detector.on_tiles(path, self.tiling, self.merging, self.with_whole)
        return found if self.show_from_score is None else found.from_score(self.show_from_score)

    def _settings(self) -> dict:
        settings = {
            'checkpoint': self.run.checkpoint_path.name,
            'network': self.which if self.run.is_pair else 'detector',
            'least_score': self.least_score,
            'show_from_score': self._thresholds_by_class(),
            'long_side': self.long_side,
            'tiling': None,
        }
        if self.tiling is not None:
            settings |= {
                'tiling': asdict(self.tiling),
                'merging': asdict(self.merging),
                'with_whole': self.with_whole,
            }
        return settings

    def _thresholds_by_class(self) -> dict[str, float] | None:
        if self.show_from_score is None:
            return None
        rounded = (round(float(score), 4) for score in self.show_from_score)
        return dict(zip(self.run.classes, rounded, strict=True))


def write_json(document: dict, path: Path) -> None:
    """Writes a document as a whole or not at all.

    Raises:
        UserError: The disk is full or does not let us write.
    """
    write_file(path, as_json(document, ascii_only=False).encode())
