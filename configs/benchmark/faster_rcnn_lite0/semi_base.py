"""MMDetection's ``SemiBaseDetector`` on the same small Faster R-CNN: Soft Teacher's base class.

Without box jitter and without weights from the background score; kept for the comparison of speed.
"""

_base_ = 'soft_teacher.py'

model = dict(type='SemiBaseDetector')
