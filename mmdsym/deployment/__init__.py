"""Trained detectors as ONNX files, with the proof that they find the same boxes."""
