"""Conditional diffusion that paints defects: model, sampler, layouts, cache and data set."""

from .classifier_acceptance import CropClassifierAcceptance
from .copy_paste import CopyPasteSynthesiser
from .diffusion_synthesiser import DiffusionSynthesiser
from .export_hook import DiffusionExportHook
from .inpainting_model import DefectInpaintingDiffusion
from .loss_metric import DiffusionLossMetric
from .region_transform import CropDefectRegion
from .sample_sheet_hook import SampleSheetHook
from .stable_diffusion import StableDiffusionSynthesiser
from .synthesis_dataset import DiffusionSynthesisDataset

__all__ = [
    'CopyPasteSynthesiser',
    'CropClassifierAcceptance',
    'CropDefectRegion',
    'DefectInpaintingDiffusion',
    'DiffusionExportHook',
    'DiffusionLossMetric',
    'DiffusionSynthesisDataset',
    'DiffusionSynthesiser',
    'SampleSheetHook',
    'StableDiffusionSynthesiser',
]
