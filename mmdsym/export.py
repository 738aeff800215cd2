"""From a trained teacher-student pair to one plain MMDetection detector."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.utils import get_test_pipeline_cfg
from mmdet.visualization import get_palette
from mmengine import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmdsym.atomic_file import sync
from mmdsym.datasets.preparation.leavings import scratch_folder
from mmdsym.errors import UserError
from mmdsym.export_check import Comparison, compare_predictions
from mmdsym.output_place import require_place
from mmdsym.trained_run import OWN_THRESHOLDS, TrainedRun, dataset_for_testing, load_strictly

TIMM_BACKBONE = 'mmdsym.TimmBackbone'
TIMM_BACKBONE_MODULE = 'mmdsym.models.timm_backbone'
# What stands in for mmdsym's own data parts: MMDetection's type, and arguments that it lacks.
_REPLACEMENTS = {
    'mmdsym.LoadCachedImageFromFile': ('LoadImageFromFile', ('cache_megabytes',)),
    'mmdsym.DefectDataset': ('CocoDataset', ()),
}


@dataclass(frozen=True)
class ExportedDetector:
    """The files of an exported detector, and the proof that it predicts the same."""

    config_path: Path
    checkpoint_path: Path
    comparison: Comparison


def plain_state_dict(run: TrainedRun, which: str = 'teacher') -> dict[str, Tensor]:
    """Takes one network's tensors out of a checkpoint, under the names of a plain detector.

    Args:
        run: Its checkpoint holds ``teacher.*`` and ``student.*``, or is of a plain detector.
        which: ``'teacher'`` or ``'student'``; without meaning for a plain detector.

    Raises:
        UserError: The checkpoint has no such network.
    """
    state = run.checkpoint['state_dict']
    if not run.is_pair:
        return dict(state)
    prefix = f'{which}.'
    taken = {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
    if not taken:
        raise UserError(
            f"'{run.checkpoint_path}' holds no {which} (its tensors start with "
            f"{next(iter(state), 'nothing')}), though '{run.config_path}' declares one; name a "
            'checkpoint of that config, or the config of that checkpoint with --config.'
        )
    return taken


def plain_config(run: TrainedRun) -> Config:
    """Reduces a training config to what a plain detector's inference and testing need.

    Args:
        run: Config of a teacher-student pair or of a plain detector.

    Returns:
        ``model``, ``test_pipeline``, ``test_dataloader``, ``test_evaluator``, ``test_cfg``,
        ``visualizer``, ``default_hooks`` and ``default_scope``, of MMDetection's own parts;
        ``custom_imports`` only where a part is from elsewhere.

    Raises:
        UserError: A part of mmdsym has no counterpart in MMDetection.
    """
    source = run.config.to_dict()
    classes = run.classes
    model = _plain_model(source['model'], run.config_path)
    _check_class_count(model, classes, run)
    stage = 'test' if source.get('test_dataloader') else 'val'
    dataloader = _with_mmdet_parts(source[f'{stage}_dataloader'])
    dataset = dataset_for_testing(dataloader)
    dataset['metainfo'] = dict(classes=classes, palette=palette_for(len(classes)))
    pipeline = get_test_pipeline_cfg(Config(dict(test_dataloader=dataloader)))
    plain = dict(
        default_scope=source.get('default_scope') or 'mmdet',
        model=model,
        test_pipeline=[dict(step) for step in pipeline],
        test_dataloader=dataloader,
        test_evaluator=_plain_evaluator(source.get(f'{stage}_evaluator'), dataset),
        test_cfg=dict(type='TestLoop'),
        default_hooks=dict(visualization=dict(type='DetVisualizationHook')),
        visualizer=dict(
            type='DetLocalVisualizer',
            name='visualizer',
            vis_backends=[dict(type='LocalVisBackend')],
        ),
    )
    imports = _needed_imports(source, plain, run.config_path)
    return Config(dict(custom_imports=dict(imports=imports), **plain) if imports else plain)


def palette_for(class_count: int) -> list[tuple[int, int, int]]:
    """Returns a colour (red, green, blue) for each class, always the same ones."""
    return [tuple(int(value) for value in colour) for colour in get_palette('random', class_count)]


def plain_checkpoint(run: TrainedRun, which: str = 'teacher') -> dict[str, Any]:
    """Builds the checkpoint of a plain detector: weights, class names and calibrated thresholds.

    Returns:
        ``state_dict`` and ``meta``, and the score of each class from which its boxes are worth
        showing where it was calibrated; loads with ``weights_only=True``.
    """
    classes = run.classes
    meta = dict(
        dataset_meta=dict(classes=classes, palette=palette_for(len(classes))),
        exported_from=run.checkpoint_path.name,
        network=which if run.is_pair else 'detector',
    )
    meta |= {k: v for k, v in run.checkpoint.get('meta', {}).items() if k in ('iter', 'epoch')}
    thresholds = run.own_thresholds
    calibrated = {} if thresholds is None else {OWN_THRESHOLDS: list(thresholds)}
    return dict(state_dict=plain_state_dict(run, which), meta=meta, **calibrated)


def build_plain_detector(run: TrainedRun, which: str = 'teacher') -> nn.Module:
    """Builds the plain detector in memory, ready for ``mmdet.apis.inference_detector`` on CPU.

    Raises:
        UserError: Checkpoint and config do not belong together.
    """
    config = plain_config(run)
    init_default_scope(config.default_scope)
    # Detectors write into the config that they are built from.
    detector = MODELS.build(deepcopy(config.model))
    checkpoint = plain_checkpoint(run, which)
    load_strictly(detector, checkpoint['state_dict'], run)
    detector.dataset_meta = checkpoint['meta']['dataset_meta']
    detector.cfg = config
    return detector.eval()


def export_detector(
    run: TrainedRun, out: str | Path, which: str = 'teacher', force: bool = False
) -> ExportedDetector:
    """Writes one network of a run as a plain MMDetection config and checkpoint.

    The files appear under their names only after ``init_detector`` has loaded them and predicted
    the same boxes as the network in training.

    Args:
        run: From :func:`load_run`.
        out: Folder to write to; made if missing.
        which: ``'teacher'`` or ``'student'``.
        force: Whether to replace an earlier export.

    Raises:
        UserError: The files exist, config and checkpoint do not belong together, or the exported
            detector predicts something else.
    """
    out = Path(out)
    name = f'{run.config_path.stem}_{which}' if run.is_pair else f'{run.config_path.stem}_detector'
    targets = [out / f'{name}{suffix}' for suffix in ('.py', '.pth')]
    for path in targets:
        require_place(path, force)
    config = plain_config(run)
    build_plain_detector(run, which)  # tells in one sentence what does not belong together
    with scratch_folder(out, '.unfinished') as folder:
        drafts = [folder / path.name for path in targets]
        drafts[0].write_text(_config_text(config, run, which), encoding='utf-8')
        torch.save(plain_checkpoint(run, which), drafts[1])
        comparison = compare_predictions(run, which, *drafts)
        if not comparison.boxes:
            comparison = _compare_all_boxes(run, which, folder, drafts[1])
        if comparison.difference > 1e-3:
            raise UserError(
                f'the exported detector predicts other boxes than the {which} (difference '
                f'{comparison.difference:g}), so that nothing was written; its test pipeline or '
                "data preprocessor must differ from MMDetection's."
            )
        put_in_place(drafts, targets)
    return ExportedDetector(*targets, comparison)


def without_score_threshold(run: TrainedRun) -> TrainedRun:
    """Returns a run whose detector reports boxes of every score, to have some to compare."""
    config = deepcopy(run.config)
    _drop_score_thresholds(config.model)
    return replace(run, config=config)


def nothing_to_compare(run: TrainedRun) -> UserError:
    """Returns the error of a detector that predicts no box at all, whatever its score."""
    return UserError(
        f"'{run.checkpoint_path}' predicts no box on any test image, whatever its score, so that "
        'nothing proves that an export predicts the same, and none was written; train it longer, '
        'or name another checkpoint.'
    )


def _drop_score_thresholds(node: Any) -> None:
    if isinstance(node, (list, tuple)):
        for item in node:
            _drop_score_thresholds(item)
    elif isinstance(node, dict):
        if 'score_thr' in node:
            node['score_thr'] = 0.0
        for item in node.values():
            _drop_score_thresholds(item)


def _compare_all_boxes(
    run: TrainedRun, which: str, folder: Path, checkpoint_path: Path
) -> Comparison:
    """Compares where no box is above the score threshold, which would prove nothing."""
    lowered = without_score_threshold(run)
    config_path = folder / 'every_score.py'
    config_path.write_text(_config_text(plain_config(lowered), run, which), encoding='utf-8')
    comparison = compare_predictions(lowered, which, config_path, checkpoint_path)
    if not comparison.boxes:
        raise nothing_to_compare(run)
    return replace(comparison, below_threshold=True)


def put_in_place(drafts: Sequence[Path], targets: Sequence[Path]) -> None:
    """Gives finished files their names, the last one being the sign that all are there.

    Of an earlier export nothing is left in between, so that its files are never taken for parts of
    the new one.
    """
    for draft in drafts:
        sync(draft)
    for path in targets:
        path.unlink(missing_ok=True)
    for draft, path in zip(drafts, targets, strict=True):
        os.replace(draft, path)


def _plain_model(model: dict, config_path: Path) -> dict:
    """Takes the detector out of its teacher-student wrapper, with the inner preprocessor."""
    plain = dict(model.get('detector', model))
    outer = model.get('data_preprocessor') or {}
    preprocessor = outer.get('data_preprocessor', outer) or plain.get('data_preprocessor')
    if not preprocessor:
        raise UserError(f"'{config_path}' gives the model no data_preprocessor; add it.")
    # Batch augmentation is for training alone.
    plain['data_preprocessor'] = {k: v for k, v in preprocessor.items() if k != 'batch_augments'}
    return _without_pretrained(plain)


def _without_pretrained(node: Any) -> Any:
    """Drops references to pretrained weights: the checkpoint holds all of them."""
    if isinstance(node, (list, tuple)):
        return type(node)(_without_pretrained(item) for item in node)
    if not isinstance(node, dict):
        return node
    cleaned = {key: _without_pretrained(value) for key, value in node.items()}
    if isinstance(cleaned.get('pretrained'), str):
        cleaned['pretrained'] = None
    if 'Pretrained' in repr(cleaned.get('init_cfg')):
        cleaned['init_cfg'] = None
    return cleaned


def _check_class_count(model: dict, classes: Sequence[str], run: TrainedRun) -> None:
    heads = model.get('bbox_head') or (model.get('roi_head') or {}).get('bbox_head') or {}
    for head in heads if isinstance(heads, (list, tuple)) else [heads]:
        count = head.get('num_classes', len(classes))
        if count != len(classes):
            raise UserError(
                f"'{run.config_path}' has a head for {count} classes, but '{run.checkpoint_path}' "
                f'was trained on {len(classes)} ({", ".join(classes)}); name its own config with '
                '--config.'
            )


def _with_mmdet_parts(node: Any) -> Any:
    """Replaces mmdsym's data parts by those of MMDetection that do the same in testing."""
    if isinstance(node, (list, tuple)):
        return type(node)(_with_mmdet_parts(item) for item in node)
    if not isinstance(node, dict):
        return node
    replaced = {key: _with_mmdet_parts(value) for key, value in node.items()}
    if replaced.get('type') in _REPLACEMENTS:
        replaced['type'], dropped = _REPLACEMENTS[replaced['type']]
        replaced = {key: value for key, value in replaced.items() if key not in dropped}
    return replaced


def _plain_evaluator(evaluator: dict | list | None, dataset: dict) -> dict | list:
    default = dict(type='CocoMetric', metric='bbox')
    if dataset.get('ann_file'):
        default['ann_file'] = os.path.join(dataset.get('data_root') or '', dataset['ann_file'])
    metrics = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator or default]
    if any(str(metric['type']).startswith('mmdsym.') for metric in metrics):
        metrics = [default]
    return metrics[0] if len(metrics) == 1 else list(metrics)


def _types(node: Any) -> set[str]:
    if isinstance(node, (list, tuple)):
        return set().union(*map(_types, node))
    if not isinstance(node, dict):
        return set()
    own = {str(node['type'])} if 'type' in node else set()
    return own.union(*map(_types, node.values()))


def _needed_imports(source: dict, plain: dict, config_path: Path) -> list[str]:
    """Lists the modules to import: other people's plugins, and TimmBackbone where it is used."""
    own = {name for name in _types(plain) if name.startswith('mmdsym.')}
    foreign = own - {TIMM_BACKBONE}
    if foreign:
        raise UserError(
            f"'{config_path}' needs {', '.join(sorted(foreign))} for inference, which plain "
            "MMDetection does not have; replace it in the config by a part of MMDetection's."
        )
    imports = (source.get('custom_imports') or {}).get('imports') or []
    imports = [imports] if isinstance(imports, str) else imports
    others = [module for module in imports if module.split('.')[0] != 'mmdsym']
    return others + ([TIMM_BACKBONE_MODULE] if own else [])


def _config_text(config: Config, run: TrainedRun, which: str) -> str:
    """Writes the pipeline once, so that whoever edits it edits what is used."""
    parts = config.to_dict()
    pipeline = Config(dict(test_pipeline=parts.pop('test_pipeline')))
    marker = 'the_test_pipeline'
    dataset_for_testing(parts['test_dataloader'])['pipeline'] = marker
    rest = Config(parts).pretty_text.replace(f"'{marker}'", 'test_pipeline')
    network = which if run.is_pair else 'detector'
    header = f'# Exported from {run.config_path.name} and {run.checkpoint_path.name}: {network}.\n'
    # Where Config does not format its text, it ends without a line break.
    return f'{header}{pipeline.pretty_text.rstrip()}\n{rest}'
