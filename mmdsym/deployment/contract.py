"""What a runtime must know of an ONNX file besides the graph; it travels inside the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmengine import Config

from mmdsym.errors import UserError
from mmdsym.tiling import Tiling
from mmdsym.tiling.tiled_detector import Merging

from .graph import DetectorGraph

# The entry of the file's metadata_props that holds the contract as JSON.
METADATA_KEY = 'mmdsym'
INPUT_NAME = 'image'
OUTPUT_NAMES = ('boxes', 'scores', 'labels')
_LOADERS = {
    'color_type': 'color',
    'imdecode_backend': 'cv2',
    'file_client_args': None,
    'backend_args': None,
    'to_float32': None,
    'ignore_empty': None,
}


@dataclass(frozen=True)
class Resize:
    """How an image becomes the graph's input: bilinear, without antialiasing, as OpenCV does it.

    Attributes:
        width, height: Pixels; with ``keep_ratio`` the bounds, long side to long side.
        keep_ratio: Whether the image keeps its ratio of sides.
        pad_width, pad_height: What is then filled up, at the right and below; 0 for nothing.
        pad_value: Red, green and blue of that, 0..255.
    """

    width: int
    height: int
    keep_ratio: bool
    pad_width: int = 0
    pad_height: int = 0
    pad_value: tuple[int, int, int] = (0, 0, 0)


def read_resize(pipeline: Sequence[dict]) -> Resize:
    """Reads from a test pipeline how images are resized and padded.

    Raises:
        UserError: It does something else to the pixels, which an inference script would not do.
    """
    found: dict[str, Any] = {}
    for step in map(dict, pipeline):
        kind = str(step.pop('type')).rpartition('.')[2]
        if kind == 'LoadImageFromFile' and _reads_plainly(step):
            continue
        if kind == 'Resize' and not found and _is_plain_resize(step):
            scale = step['scale']
            width, height = (scale, scale) if isinstance(scale, int) else scale
            found = dict(width=width, height=height, keep_ratio=bool(step.get('keep_ratio')))
        elif kind == 'Pad' and found and 'pad_width' not in found and _is_plain_pad(step):
            width, height = step['size']
            value = _pad_value(step.get('pad_val', 0))
            found |= dict(pad_width=width, pad_height=height, pad_value=value)
        elif kind not in ('LoadAnnotations', 'PackDetInputs'):
            raise UserError(
                f'the test pipeline has {kind}({_arguments(step)}), which the ONNX inference '
                'script does not do; keep to LoadImageFromFile, Resize(scale=...) and '
                'Pad(size=...).'
            )
    if not found:
        raise UserError(
            'the test pipeline has no Resize(scale=...), so that nobody knows the size of the '
            'input; add one.'
        )
    return Resize(**found)


def describe(
    graph: DetectorGraph,
    classes: Sequence[str],
    config: Config,
    score_thresholds: Sequence[float],
    exported_from: str,
    tiling: Tiling | None = None,
) -> dict[str, Any]:
    """Builds the contract of an exported detector.

    Args:
        graph: What is exported.
        classes: Class names in the order of labels.
        config: Plain config; its ``test_pipeline`` tells how images are loaded.
        score_thresholds: Per class, from which score a box is worth showing.
        exported_from: Checkpoint and network, in words.
        tiling: The tiles that the detector was trained on, if it was.
    """
    suppression = graph.suppression
    return dict(
        version=1,
        classes=list(classes),
        input=dict(name=INPUT_NAME, type='uint8', layout='NCHW', channels='RGB', values='0..255'),
        outputs=list(OUTPUT_NAMES),
        resize=asdict(read_resize(config.test_pipeline)),
        normalisation='inside the graph',
        score_threshold=float(graph.test_config.get('score_thr', 0)),
        show_from_score=[round(float(value), 6) for value in score_thresholds],
        suppression=dict(
            inside=graph.suppress,
            iou_threshold=suppression.iou_threshold,
            class_agnostic=suppression.class_agnostic,
            max_boxes=suppression.limit,
        ),
        tiling=None
        if tiling is None
        else asdict(tiling) | {'merge_threshold': Merging().threshold},
        detector=type(graph.detector).__name__,
        exported_from=exported_from,
    )


def _reads_plainly(step: dict) -> bool:
    known = all(key in _LOADERS for key in step)
    return known and all(_LOADERS[key] in (None, value) for key, value in step.items())


def _is_plain_resize(step: dict) -> bool:
    plain = dict(interpolation='bilinear', backend='cv2', clip_object_border=None, keep_ratio=None)
    rest = {key: value for key, value in step.items() if key != 'scale'}
    known = step.get('scale') is not None and all(key in plain for key in rest)
    return known and all(plain[key] in (None, value) for key, value in rest.items())


def _is_plain_pad(step: dict) -> bool:
    mode = step.get('padding_mode', 'constant')
    known = step.get('size') is not None and set(step) <= {'size', 'pad_val', 'padding_mode'}
    return known and mode == 'constant' and not isinstance(step['size'], int)


def _pad_value(value: Any) -> tuple[int, int, int]:
    """Returns red, green and blue; pipelines work on BGR."""
    value = value.get('img', 0) if isinstance(value, dict) else value
    values = [value] * 3 if isinstance(value, (int, float)) else list(value)
    blue, green, red = (int(v) for v in values)
    return red, green, blue


def _arguments(step: dict) -> str:
    return ', '.join(f'{key}={value!r}' for key, value in step.items())
