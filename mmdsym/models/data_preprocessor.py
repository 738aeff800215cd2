"""Preprocessing of batches whose branches differ from stage to stage."""

from __future__ import annotations

from mmdet.models.data_preprocessors import MultiBranchDataPreprocessor

from mmdsym.registry import MODELS


@MODELS.register_module()
class StagedDataPreprocessor(MultiBranchDataPreprocessor):
    """MMDetection's multi-branch preprocessor, for batches in which a branch may be absent.

    In burn-in no sample fills the unlabelled branches; they are left out instead of being
    stacked as empty lists.

    Args:
        data_preprocessor: Config of the detector's own preprocessor, applied to each branch.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalises and batches each branch that has samples.

        Args:
            data: ``inputs`` and ``data_samples``; in training each maps a branch to a list with
                one entry per sample, ``None`` where the sample has no such branch.
            training: Whether the data come in branches.

        Returns:
            The same two keys; in training each maps a branch to its batch: a tensor of shape
            (N, C, H, W), and a list of N data samples.
        """
        if not training:
            return self.data_preprocessor(data, training)
        batches: dict[str, dict] = {key: {} for key in data}
        for branch in data['inputs']:
            samples = {
                key: [sample for sample in branches[branch] if sample is not None]
                for key, branches in data.items()
            }
            if not samples['inputs']:
                continue
            for key, batch in self.data_preprocessor(samples, training).items():
                batches[key][branch] = batch
        return batches
