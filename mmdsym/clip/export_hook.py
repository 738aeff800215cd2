"""Hands the adapted CLIP model over to those who score with it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmdsym.clip.adaptation import CLIPAdaptation
from mmdsym.clip.crop_metric import CropMetric
from mmdsym.clip.model_building import CONFIG_NAME
from mmdsym.clip.model_writing import write_clip
from mmdsym.errors import UserError
from mmdsym.evaluation.held_out_quality import HeldOutQuality
from mmdsym.registry import HOOKS


@HOOKS.register_module()
class CLIPExportHook(Hook):
    """Writes the adapted model as safetensors and json when training ends.

    ``CLIPScorer(weights=out_dir)`` reads it; so does open_clip, as ``local-dir:OUT_DIR``.

    Args:
        out_dir: Folder to write; by default ``clip`` in the work folder.
    """

    priority = 'LOW'

    def __init__(self, out_dir: str | None = None) -> None:
        self.out_dir = out_dir
        self._quality: HeldOutQuality | None = None

    def before_train(self, runner: Runner) -> None:
        """Makes sure that the result will not replace another one.

        Raises:
            UserError: The folder holds a model, and this is no resumed run; or it is a file.
        """
        folder = self._folder(runner)
        if folder.exists() and not folder.is_dir():
            raise UserError(f'{folder} is a file: name a folder as out_dir for CLIPExportHook.')
        if runner.iter == 0 and (folder / CONFIG_NAME).exists():
            raise UserError(
                f'{folder} holds an adapted CLIP model already: use it, remove it, or name another '
                'out_dir for CLIPExportHook.'
            )

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Remembers how right the model is on held-out crops, for those who use it."""
        names = {name: f'{CropMetric.default_prefix}/{name}' for name in HeldOutQuality._fields}
        if metrics and all(metric in metrics for metric in names.values()):
            found = {name: metrics[metric] for name, metric in names.items()}
            self._quality = HeldOutQuality(
                int(found['crops']),
                float(found['accuracy']),
                float(found['calibration_error']),
                bool(found['better_than_chance']),
            )

    def after_train(self, runner: Runner) -> None:
        """Writes the model and says where."""
        if self._quality is None and runner.val_loop is not None:
            # Resumed from its last iteration: what validation had found went with the process.
            runner.val_loop.run()
        self._write(runner)

    @master_only
    def _write(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        folder = self._folder(runner)
        write_adapted(folder, model, self._quality)
        runner.logger.info(f'The adapted CLIP model is in {folder}: CLIPScorer(weights=...).')

    def _folder(self, runner: Runner) -> Path:
        return Path(runner.work_dir) / 'clip' if self.out_dir is None else Path(self.out_dir)


def write_adapted(
    folder: Path, model: CLIPAdaptation, held_out: HeldOutQuality | None = None
) -> None:
    """Writes an adapted model with its classes, sentences, views and extent head.

    Args:
        folder: Created where it is missing.
        model: The model.
        held_out: How right it is on crops that it has not seen.
    """
    settings = dict(
        classes=list(model.classes),
        prompts=model.prompts,
        views=[asdict(view) for view in model.views],
        held_out=None if held_out is None else held_out._asdict(),
    )
    write_clip(folder, model.clip_model, settings, model.extent_head)
