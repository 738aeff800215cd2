"""A procedural generator of steel surfaces with defects, for trying things without any data."""

from mmdsym.datasets.preparation.demo.generate import DemoImage, make_image, open_demo

__all__ = ['DemoImage', 'make_image', 'open_demo']
