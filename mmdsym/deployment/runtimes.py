"""ONNX Runtime and OpenVINO behind one call: pixels in, boxes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .contract import INPUT_NAME, OUTPUT_NAMES


class OnnxRuntime:
    """An ONNX file in ONNX Runtime, on the CPU.

    Args:
        path: The file.
        threads: How many it may use; 0 for as many as it likes.
    """

    def __init__(self, path: str | Path, threads: int = 0) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Threads that wait busily for the next image would take cores from whatever runs then.
        options.add_session_config_entry('session.force_spinning_stop', '1')
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=['CPUExecutionProvider']
        )

    def __call__(self, rgb: np.ndarray) -> list[np.ndarray]:
        """Returns boxes, scores and labels for images (B, 3, H, W), uint8."""
        return self._session.run(list(OUTPUT_NAMES), {INPUT_NAME: rgb})


class OpenVino:
    """An ONNX file in OpenVINO, on the CPU, in full precision.

    Args:
        path: The file.
        threads: How many it may use; 0 for as many as it likes.
    """

    def __init__(self, path: str | Path, threads: int = 0) -> None:
        import openvino

        settings = {'INFERENCE_PRECISION_HINT': 'f32', 'PERFORMANCE_HINT': 'LATENCY'}
        if threads:
            settings['INFERENCE_NUM_THREADS'] = threads
        self._model = openvino.Core().compile_model(str(path), 'CPU', settings)

    def __call__(self, rgb: np.ndarray) -> list[np.ndarray]:
        """Returns boxes, scores and labels for images (B, 3, H, W), uint8."""
        outputs = self._model({INPUT_NAME: rgb})
        return [outputs[name] for name in OUTPUT_NAMES]
