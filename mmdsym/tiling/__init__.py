"""Large images, cut into tiles that overlap: the same grid for training and for inference."""

from mmdsym.tiling.boxes import cut_box, to_image, visible_share
from mmdsym.tiling.grid import Tiling, Window

__all__ = ['Tiling', 'Window', 'cut_box', 'to_image', 'visible_share']
