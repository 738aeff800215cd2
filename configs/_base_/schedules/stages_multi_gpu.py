"""The schedule of one GPU for several: four times the images in a step, a quarter of the steps.

The processes share ``images_per_step``. What follows from it stands in docs/guide.md.
"""

_base_ = 'stages_gpu.py'

images_per_step = 64
