"""A procedural generator of steel surfaces with defects, for trying things without any data."""

from mmdsym.datasets.preparation.demo.generate import DemoImage, make_image, open_demo
from mmdsym.datasets.preparation.demo.large import make_large_image, open_large_demo

__all__ = ['DemoImage', 'make_image', 'make_large_image', 'open_demo', 'open_large_demo']
