"""MMDetection's own Soft Teacher (Faster R-CNN on ResNet-50) on the same data, on one GPU.

Its thresholds and weights are those of MMDetection's config for COCO.
"""

_base_ = [
    '../_base_/runtime.py',
    '../_base_/detectors/faster_rcnn_r50.py',
    '../_base_/datasets/semi_supervised.py',
    '../_base_/schedules/adamw.py',
]

data_root = 'data/neu_det/'
split = '40pct_seed0'
image_size = (448, 448)

branches = ['sup', 'unsup_teacher', 'unsup_student']
detector = _base_.model
model = dict(
    _delete_=True,
    type='SoftTeacher',
    detector=detector,
    data_preprocessor=dict(
        type='MultiBranchDataPreprocessor', data_preprocessor=detector.data_preprocessor
    ),
    semi_train_cfg=dict(
        freeze_teacher=True,
        sup_weight=1.0,
        unsup_weight=4.0,
        pseudo_label_initial_score_thr=0.5,
        rpn_pseudo_thr=0.9,
        cls_pseudo_thr=0.9,
        reg_pseudo_thr=0.02,
        jitter_times=10,
        jitter_scale=0.06,
        min_pseudo_bbox_wh=(1e-2, 1e-2),
    ),
    semi_test_cfg=dict(predict_on='teacher'),
)

labelled = dict(
    type='mmdsym.DefectDataset',
    ann_file='{data_root}annotations/{split}/labelled.json',
    data_prefix=dict(img='{data_root}images/'),
    pipeline=[
        *_base_.supervised_views,
        dict(type='MultiBranch', branch_field=branches, sup=_base_.pack),
    ],
)
unlabelled = dict(
    type='mmdsym.DefectDataset',
    ann_file='{data_root}annotations/{split}/unlabelled.json',
    data_prefix=dict(img='{data_root}images/'),
    pipeline=[
        _base_.load_image,
        dict(type='LoadEmptyAnnotations', with_bbox=True),
        dict(
            type='MultiBranch',
            branch_field=branches,
            unsup_teacher=_base_.weak_view,
            unsup_student=_base_.strong_view,
        ),
    ],
)
train_dataloader = dict(
    _delete_=True,
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='MultiSourceSampler', batch_size=16, source_ratio=[1, 1]),
    dataset=dict(type='ConcatDataset', datasets=[labelled, unlabelled]),
)

max_iters = 12000
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=2000)
val_cfg = dict(type='TeacherStudentValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=500, end=max_iters),
]
custom_hooks = [dict(type='MeanTeacherHook')]
