"""MMDetection's own Soft Teacher (Faster R-CNN on ResNet-50) on the same data, on one GPU.

Its thresholds and weights are those of MMDetection's config for COCO.
"""

_base_ = [
    '../_base_/runtime.py',
    '../_base_/detectors/faster_rcnn_r50.py',
    '../_base_/semi/mean_teacher.py',
    '../_base_/schedules/iterations_gpu.py',
]

data_root = 'data/neu_det/'
split = '40pct_seed0'
image_size = (448, 448)

detector = _base_.model
model = dict(
    _delete_=True,
    type='SoftTeacher',
    detector=detector,
    data_preprocessor=dict(
        type='MultiBranchDataPreprocessor', data_preprocessor=detector.data_preprocessor
    ),
    semi_train_cfg=_base_.soft_teacher_settings,
    semi_test_cfg=dict(predict_on='teacher'),
)
