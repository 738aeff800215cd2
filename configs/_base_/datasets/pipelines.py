"""How images are loaded and augmented, for every data set. A leaf may set
``image_size`` (width, height)."""

image_size = (224, 224)

branches = ['sup', 'synthetic', 'unsup_teacher', 'unsup_student']
meta_keys = (
    'img_id',
    'img_path',
    'ori_shape',
    'img_shape',
    'scale_factor',
    'flip',
    'flip_direction',
    'homography_matrix',
)

load_image = dict(type='mmdsym.LoadCachedImageFromFile')
load_boxes = dict(type='LoadAnnotations', with_bbox=True)
pack = dict(type='PackDetInputs', meta_keys=meta_keys)

# Surfaces have no upright position: all eight orientations are as likely.
orientation = [
    dict(
        type='RandomFlip',
        prob=[0.25, 0.25, 0.25],
        direction=['horizontal', 'vertical', 'diagonal'],
    ),
    dict(type='mmdsym.RandomTranspose', prob=0.5, image_size='{image_size}'),
]
rescale = [
    dict(type='RandomResize', scale='{image_size}', ratio_range=(0.85, 1.25), keep_ratio=True),
    dict(type='RandomCrop', crop_size='{image_size}', allow_negative_crop=True),
    dict(type='Pad', size='{image_size}', pad_val=dict(img=(114, 114, 114))),
]
clean_boxes = dict(type='FilterAnnotations', min_gt_bbox_wh=(2, 2), keep_empty=False)

supervised_views = [
    load_image,
    load_boxes,
    *orientation,
    *rescale,
    dict(type='PhotoMetricDistortion', brightness_delta=24, contrast_range=(0.7, 1.3)),
    clean_boxes,
]
weak_view = [
    dict(type='Resize', scale='{image_size}', keep_ratio=True),
    *orientation,
    dict(type='Pad', size='{image_size}', pad_val=dict(img=(114, 114, 114))),
    pack,
]
strong_view = [
    *orientation,
    *rescale,
    dict(type='PhotoMetricDistortion', brightness_delta=48, contrast_range=(0.5, 1.5)),
    dict(type='RandomErasing', n_patches=(1, 4), ratio=(0.02, 0.15)),
    pack,
]

plain_pipeline = [*supervised_views, pack]
labelled_pipeline = [
    *supervised_views,
    dict(type='MultiBranch', branch_field=branches, sup=pack),
]
unlabelled_pipeline = [
    load_image,
    dict(type='LoadEmptyAnnotations', with_bbox=True),
    dict(
        type='MultiBranch',
        branch_field=branches,
        unsup_teacher=weak_view,
        unsup_student=strong_view,
    ),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale='{image_size}', keep_ratio=True),
    # After Resize, so that the boxes stay in the frame of the original image.
    load_boxes,
    pack,
]
