"""What MMDetection's own teacher-student detectors have in common: data, loop and teacher's EMA.

A leaf config names the detector and how long to train. The teacher follows by MMDetection's
``MeanTeacherHook`` as it is shipped: parameters only, no BatchNorm statistics.
"""

_base_ = '../datasets/evaluation.py'

branches = ['sup', 'unsup_teacher', 'unsup_student']
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
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='MultiSourceSampler', batch_size=16, source_ratio=[1, 1]),
    dataset=dict(type='ConcatDataset', datasets=[labelled, unlabelled]),
)

# Thresholds and weights of MMDetection's Soft Teacher config for COCO.
soft_teacher_settings = dict(
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
)

val_cfg = dict(type='TeacherStudentValLoop')
test_cfg = dict(type='TestLoop')
custom_hooks = [dict(type='MeanTeacherHook')]
