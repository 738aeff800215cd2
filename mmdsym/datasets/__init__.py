"""Data sets, sampling and loading; ``preparation`` turns raw data into COCO files."""

from .defect_dataset import DefectDataset, count_images, read_classes
from .loading import LoadCachedImageFromFile
from .multi_source import MultiSourceDataset, SampleRequest, StagedBatchSampler, StagedSampler
from .transpose import RandomTranspose

__all__ = [
    'DefectDataset',
    'LoadCachedImageFromFile',
    'MultiSourceDataset',
    'RandomTranspose',
    'SampleRequest',
    'StagedBatchSampler',
    'StagedSampler',
    'count_images',
    'read_classes',
]
