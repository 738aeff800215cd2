"""From a trained run to an ONNX file that is proved to find the same boxes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mmdsym.atomic_file import sync
from mmdsym.datasets.preparation.leavings import scratch_folder
from mmdsym.errors import UserError
from mmdsym.export import build_plain_detector, nothing_to_compare, without_score_threshold
from mmdsym.output_place import require_place
from mmdsym.tiling.whole_images import tiling_of
from mmdsym.trained_run import TrainedRun
from mmdsym.visualization.detections import thresholds_of

from .contract import INPUT_NAME, METADATA_KEY, OUTPUT_NAMES, describe
from .frames import Frame, read_frames
from .graph import DetectorGraph, zeros_like_image
from .matching import Comparison
from .parity import check_parity
from .runtimes import OnnxRuntime
from .same_padding import fix_same_padding

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 17
_FREE_AXES = {INPUT_NAME: {0: 'batch', 2: 'height', 3: 'width'}} | {
    name: {0: 'batch', 1: 'box'} for name in OUTPUT_NAMES
}


@dataclass(frozen=True)
class OnnxExport:
    """An ONNX file and the proof that it finds the same boxes.

    Attributes:
        path: The file.
        parity: What was compared.
        real: Whether on images of the test set; otherwise on noise.
        size: Width and height that its input has; ``None`` if it takes any.
        contract: What the file says of itself.
        below_threshold: Whether boxes of every score were compared, since none was above the
            detector's own threshold.
    """

    path: Path
    parity: Comparison
    real: bool
    size: tuple[int, int] | None
    contract: dict[str, Any]
    below_threshold: bool = False


def export_onnx(
    run: TrainedRun,
    out: str | Path,
    which: str = 'teacher',
    suppress: bool = True,
    fixed_size: bool = False,
    force: bool = False,
    image_count: int = 8,
) -> OnnxExport:
    """Writes one network of a run as ONNX file, if ONNX Runtime finds the same boxes in it.

    Args:
        run: From :func:`mmdsym.trained_run.load_run`.
        out: Folder to write to; made if missing.
        which: ``'teacher'`` or ``'student'``; without meaning for a plain detector.
        suppress: Whether the graph itself suppresses overlapping boxes.
        fixed_size: Whether the graph takes one image of the first test image's size alone, which
            some runtimes run faster.
        force: Whether to replace an earlier export.
        image_count: Number of test images to compare on.

    Raises:
        UserError: The file exists, a package is missing, the detector has no ONNX form, or the
            boxes differ. Nothing is written then.
    """
    path = target_of(run, out, which, suppress, force)
    _require_packages()
    detector = build_plain_detector(run, which)
    frames, real = read_frames(detector.cfg, image_count)
    size = _common_size(frames) if fixed_size else None
    model, contract = _as_model(run, which, suppress, frames[0], size)
    with scratch_folder(path.parent, '.unfinished') as folder:
        draft = folder / path.name
        draft.write_bytes(model.SerializeToString())
        parity = check_parity(detector, OnnxRuntime(draft), frames, contract, size is None)
        below_threshold = not parity.boxes
        if below_threshold:
            every_score = folder / 'every_score.onnx'
            parity = _compare_all_boxes(run, which, suppress, frames, size, every_score)
        sync(draft)
        os.replace(draft, path)
    return OnnxExport(path, parity, real, size, contract, below_threshold)


def _as_model(
    run: TrainedRun, which: str, suppress: bool, frame: Frame, size: tuple[int, int] | None
) -> tuple[ModelProto, dict[str, Any]]:
    """Traces a network of a run; returns the model and its contract, which it holds as well."""
    # Another instance than is compared with, which must not be touched.
    graph = DetectorGraph(build_plain_detector(run, which), suppress).eval()
    detector = graph.detector
    if size is None and not graph.takes_any_size:
        raise UserError(
            f'{type(detector).__name__} becomes a graph for one size of images alone; add '
            '--fixed-size.'
        )
    fix_same_padding(detector, detector.data_preprocessor.pad_size_divisor)
    origin = f'{run.checkpoint_path.name}, {which if run.is_pair else "detector"}'
    thresholds = thresholds_of(run).tolist()
    contract = describe(graph, run.classes, detector.cfg, thresholds, origin, tiling_of(run))
    height, width = frame.pixels.shape[1:]
    model = to_onnx(graph, width, height, dynamic=size is None)
    _add_metadata(model, contract)
    return model, contract


def _compare_all_boxes(
    run: TrainedRun,
    which: str,
    suppress: bool,
    frames: list[Frame],
    size: tuple[int, int] | None,
    draft: Path,
) -> Comparison:
    """Compares where no box is above the score threshold, which would prove nothing."""
    lowered = without_score_threshold(run)
    model, contract = _as_model(lowered, which, suppress, frames[0], size)
    draft.write_bytes(model.SerializeToString())
    detector = build_plain_detector(lowered, which)
    parity = check_parity(detector, OnnxRuntime(draft), frames, contract, size is None)
    if not parity.boxes:
        raise nothing_to_compare(run)
    return parity


def target_of(
    run: TrainedRun, out: str | Path, which: str, suppress: bool, force: bool = False
) -> Path:
    """Returns the file that :func:`export_onnx` will write.

    Raises:
        UserError: It exists, and nobody said ``force``, or it could not be written.
    """
    name = f'{run.config_path.stem}_{which if run.is_pair else "detector"}'
    path = Path(out) / f'{name}{"" if suppress else "_raw"}.onnx'
    require_place(path, force)
    return path


def to_onnx(graph: nn.Module, width: int, height: int, dynamic: bool) -> ModelProto:
    """Traces a graph.

    Args:
        graph: A :class:`DetectorGraph` in evaluation mode.
        width, height: Pixels of the image to trace with; the file's fixed size unless ``dynamic``.
        dynamic: Whether batch and size stay free.

    Raises:
        UserError: Something in the network has no ONNX operator.
    """
    import onnx

    buffer = io.BytesIO()
    # The tracer warns of every shape that it meets; whether they matter is seen by comparing.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter('ignore')
        try:
            torch.onnx.export(
                graph,
                (zeros_like_image(width, height),),
                buffer,
                opset_version=OPSET,
                dynamo=False,
                input_names=[INPUT_NAME],
                output_names=list(OUTPUT_NAMES),
                dynamic_axes=_FREE_AXES if dynamic else None,
            )
        except UserError:
            raise
        # Whatever a network's own code raises when shapes are no plain numbers any more.
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f'{type(graph.detector).__name__} has a part that ONNX cannot express ({reason}); '
                'deploy it with MMDetection (leave out --onnx and --onnx-raw).'
            ) from error
    model = onnx.load_from_string(buffer.getvalue())
    onnx.checker.check_model(model)
    return model


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(
            f'the package {error.name} is missing; install what deployment needs: pip install '
            "'mmdsym[deploy]'."
        ) from error


def _common_size(frames: list[Frame]) -> tuple[int, int]:
    sizes = {(frame.pixels.shape[2], frame.pixels.shape[1]) for frame in frames}
    if len(sizes) > 1:
        listed = ', '.join(f'{width}x{height}' for width, height in sorted(sizes))
        raise UserError(
            f'the test images have several sizes once resized ({listed}), so that no fixed one '
            'fits; leave out --fixed-size, or set keep_ratio=False in Resize.'
        )
    return sizes.pop()


def _add_metadata(model: ModelProto, contract: dict) -> None:
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(contract)
