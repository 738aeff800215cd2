"""COCO data sets of defects that bring their own class names."""

from __future__ import annotations

import json
from pathlib import Path

from mmdet.datasets import CocoDataset

from mmdsym.datasets.loading import LoadCachedImageFromFile
from mmdsym.errors import UserError
from mmdsym.registry import DATASETS


def read_classes(annotation_file: str | Path) -> tuple[str, ...]:
    """Returns the class names of a COCO json, in the order of the file (mmdet's label order).

    Raises:
        UserError: The file is missing, is not COCO, or names no category.
    """
    categories = _read_entry(annotation_file, 'categories')
    try:
        classes = tuple(category['name'] for category in categories)
    except (KeyError, TypeError) as error:
        raise _no_coco(annotation_file, error) from None
    if not classes:
        raise UserError(
            f'{annotation_file} names no category: add the class names and prepare it again.'
        )
    return classes


def count_images(annotation_file: str | Path) -> int:
    """Returns how many images a COCO json lists.

    Raises:
        UserError: The file is missing or is not COCO.
    """
    return len(_read_entry(annotation_file, 'images'))


def _read_entry(annotation_file: str | Path, name: str) -> list:
    try:
        with open(annotation_file, encoding='utf-8') as stream:
            entry = json.load(stream)[name]
        len(entry)
    except FileNotFoundError:
        raise UserError(
            f'{annotation_file} does not exist: make it with tools/prepare_dataset.py, or correct '
            'data_root or ann_file in the config.'
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise _no_coco(annotation_file, error) from None
    return entry


def _no_coco(annotation_file: str | Path, error: Exception) -> UserError:
    return UserError(
        f'{annotation_file} is not a COCO annotation file ({error!r}): make it anew with '
        'tools/prepare_dataset.py.'
    )


@DATASETS.register_module()
class DefectDataset(CocoDataset):
    """A COCO data set whose class names are those of its annotation file.

    So nobody has to repeat them in every nested dataset (mmdetection #9706). Images without a
    box stay: a clean surface is an example too.

    Args:
        metainfo: May state ``classes``; they must then be those of the file.
        filter_cfg: As in :class:`mmdet.datasets.CocoDataset`; by default nothing is filtered.

    Raises:
        UserError: The annotation file is missing or unreadable, or the stated classes are not
            those of the file.
    """

    METAINFO: dict = {}

    def __init__(
        self,
        *args,
        ann_file: str = '',
        data_root: str | None = '',
        metainfo: dict | None = None,
        filter_cfg: dict | None = None,
        **kwargs,
    ) -> None:
        metainfo = dict(metainfo or {})
        path = Path(data_root or '') / ann_file
        found = read_classes(path)
        stated = metainfo.get('classes')
        if stated is not None and tuple(stated) != found:
            raise UserError(
                f'the config states the classes {tuple(stated)}, but {path} has {found}: remove '
                'classes from the config or prepare the data again.'
            )
        metainfo['classes'] = found
        super().__init__(
            *args,
            ann_file=ann_file,
            data_root=data_root,
            metainfo=metainfo,
            filter_cfg=filter_cfg or dict(filter_empty_gt=False),
            **kwargs,
        )

    def prepare_data(self, idx: int) -> dict | None:
        """Returns an image as the pipeline makes it.

        Raises:
            UserError: The image is missing or cannot be decoded, whatever loads it.
        """
        try:
            return super().prepare_data(idx)
        except UserError:
            raise
        except Exception:
            # MMCV's own loading, as in test pipelines, ends in errors that name no file.
            LoadCachedImageFromFile(cache_megabytes=0).decoded(self.get_data_info(idx)['img_path'])
            raise
