"""A training batch on disk, for a person to look at: json, pictures and plain arrays."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from PIL import Image

from mmdsym.atomic_file import write_file

_LISTED = 64
"""So many numbers are still written into the json itself."""


def write_batch(folder: Path, batch: object, **facts: object) -> None:
    """Writes ``batch.json``, a PNG for each image of bytes and a ``.npy`` for other large arrays.

    Nothing is pickled, so that whoever gets the folder can open it.

    Args:
        folder: Is made where it is missing.
        batch: As a data loader gives it, nested as it likes.
        **facts: What else the json is to say, such as the iteration.

    Raises:
        UserError: It cannot be written.
    """
    content = {
        **{name: _described(value, folder, name) for name, value in facts.items()},
        'batch': _described(batch, folder, 'batch'),
    }
    write_file(folder / 'batch.json', json.dumps(content, indent=1).encode())


def _described(value: object, folder: Path, name: str) -> object:
    if isinstance(value, BaseDataElement):
        value = dict([*value.metainfo_items(), *value.items()])
    if isinstance(value, Mapping):
        return {str(key): _described(one, folder, f'{name}-{key}') for key, one in value.items()}
    # Boxes of MMDetection hold a tensor.
    value = getattr(value, 'tensor', value)
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return _described_array(torch.as_tensor(value).detach().cpu(), folder, name)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_described(one, folder, f'{name}-{index}') for index, one in enumerate(value)]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    # NaN is no json.
    return value if isinstance(value, float) and math.isfinite(value) else str(value)


def _described_array(array: torch.Tensor, folder: Path, name: str) -> object:
    if array.numel() <= _LISTED:
        return _described(array.tolist(), folder, name)
    if array.dtype == torch.uint8 and array.ndim == 3 and array.shape[0] in (1, 3):
        file, content = f'{name}.png', _as_png(array)
    else:
        array = array.float() if array.is_floating_point() else array
        file, content = f'{name}.npy', _as_npy(array.numpy())
    write_file(folder / file, content)
    numbers = array.double()
    return dict(
        file=file,
        shape=list(array.shape),
        smallest=_described(float(numbers.min()), folder, name),
        largest=_described(float(numbers.max()), folder, name),
        not_finite=int((~numbers.isfinite()).sum()),
    )


def _as_png(image: torch.Tensor) -> bytes:
    """Encodes (C, H, W) in OpenCV's order of channels, as pipelines load images."""
    pixels = image.flip(0).permute(1, 2, 0).contiguous().numpy()
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(stream, 'PNG')
    return stream.getvalue()


def _as_npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()
