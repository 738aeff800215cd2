"""What Soft Teacher comes down to on a dense detector, within MMDetection.

MMDetection's class ``SoftTeacher`` needs a detector of two stages. This is its base class,
``SemiBaseDetector``, around the same ATSS as the other methods, with Soft Teacher's loss weights
and one fixed threshold: 0.5, the score from which Soft Teacher considers a box at all. Its second
threshold, 0.9 on a softmax, would leave no box: an ATSS score is a sigmoid times centerness.
The real ``SoftTeacher`` on Faster R-CNN is ``../faster_rcnn_r50/soft_teacher.py``.
"""

_base_ = [
    '../../_base_/runtime.py',
    '../../_base_/detectors/atss_efficientnet_lite2.py',
    '../../_base_/semi/mean_teacher.py',
    '../../_base_/schedules/iterations_gpu.py',
]

data_root = 'data/neu_det/'
split = '40pct_seed0'
image_size = (384, 384)

detector = _base_.model
settings = _base_.soft_teacher_settings
model = dict(
    _delete_=True,
    type='SemiBaseDetector',
    detector=detector,
    data_preprocessor=dict(
        type='MultiBranchDataPreprocessor', data_preprocessor=detector.data_preprocessor
    ),
    semi_train_cfg=dict(settings, cls_pseudo_thr=settings.pseudo_label_initial_score_thr),
    semi_test_cfg=dict(predict_on='teacher'),
)
custom_hooks = [dict(type='mmdsym.ChannelsLastHook'), *_base_.custom_hooks]
optim_wrapper = dict(optimizer=dict(lr=1e-3))
