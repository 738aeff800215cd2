"""Teaches a CLIP model the defects of a product, from labelled crops and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdsym.class_prompts import Prompts
from mmdsym.clip.contrastive import class_contrastive_losses
from mmdsym.clip.encoder import CropEncoder
from mmdsym.clip.extent_head import ExtentHead
from mmdsym.clip.freezing import freeze
from mmdsym.clip.model_building import ClipModel, build_clip, has_trunk
from mmdsym.clip.prompts import build_prompts
from mmdsym.clip.views import CropView
from mmdsym.datasets import read_classes
from mmdsym.errors import UserError
from mmdsym.registry import MODELS

MAX_LOGIT_SCALE = 100.0
"""As in CLIP: a larger one makes training unstable."""

_PROMPTS_AT_ONCE = 256


@MODELS.register_module()
class CLIPAdaptation(BaseModel):
    """Fine-tunes a CLIP model contrastively, the clean surface as a class of its own.

    Beside the sentences, a linear head on the features of a timm image tower learns how well the
    box of a crop fits its defect: sentences alone would teach the tower to overlook a wrong extent.

    Args:
        classes: Class names, or a COCO json that has them.
        model: See :func:`mmdsym.clip.model_building.build_clip`; so are the next three.
        pretrained: An open_clip tag or a file.
        image_pretrained: Weights of a timm image tower.
        weights: Folder of an adapted model, to adapt it further; its prompts, views and extent head
            go on where nothing else is given.
        prompts: Sentences of each class, see :func:`mmdsym.clip.prompts.build_prompts`.
        background_prompts: Sentences of a normal surface.
        views: How each box is looked at; those of the data set.
        trained_groups: How many of the image tower's last layer groups learn (timm's groups: in
            EfficientNets stem and blocks one by one); ``None`` for the whole tower, 0 for its
            projection alone.
        train_text: Whether the text tower learns. Its word vectors stay as they are.
        norm_eval: Whether BatchNorm layers keep their running statistics.
        prompts_per_class: Sentences of each class that one iteration draws.
        label_smoothing: See :func:`mmdsym.clip.contrastive.class_contrastive_losses`.
        extent_weight: Of the loss of the extent head; 0 leaves it out.
        min_overlap: IoU from which the crop of a moved box still shows its class.
        max_crops: Most crops in one forward pass of validation.

    Raises:
        UserError: Anything that cannot be right, see the parts.
    """

    def __init__(
        self,
        classes: Sequence[str] | str,
        model: str | Mapping | None = None,
        pretrained: str | None = None,
        image_pretrained: str | None = None,
        weights: str | PathLike | None = None,
        prompts: Prompts | None = None,
        background_prompts: Sequence[str] | None = None,
        views: Sequence[Mapping] | None = None,
        trained_groups: int | None = None,
        train_text: bool = True,
        norm_eval: bool = True,
        prompts_per_class: int = 1,
        label_smoothing: float = 0.1,
        extent_weight: float = 1.0,
        min_overlap: float = 0.5,
        max_crops: int = 256,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        built = build_clip(model, pretrained, image_pretrained, weights)
        by_file = isinstance(classes, str)
        self.classes = read_classes(Path(classes)) if by_file else tuple(classes)
        brought = built.settings
        self.prompts = build_prompts(self.classes, prompts, background_prompts, brought)
        self.views = [CropView(**view) for view in views or brought.get('views') or [{}]]
        judges_extent = extent_weight > 0 and has_trunk(built.network)
        parts = ('embedding', 'trunk') if judges_extent else ('embedding',)
        self.encoder = CropEncoder(built, self.views, parts, max_crops)
        self.extent_head = None
        if judges_extent:
            width = self.encoder.part_widths()['trunk'] * len(self.views)
            learnt = built.extent_head
            fits = learnt is not None and learnt.width == width
            self.extent_head = learnt if fits else ExtentHead(width)
        self.norm_eval = norm_eval
        self.prompts_per_class = prompts_per_class
        self.label_smoothing = label_smoothing
        self.extent_weight = extent_weight
        self.min_overlap = min_overlap
        self._built = built
        tokens = [built.tokenise(sentences) for sentences in self.prompts]
        self._counts = [len(of_class) for of_class in tokens]
        self.register_buffer('tokens', torch.cat(tokens), persistent=False)
        self._class_features: Tensor | None = None
        freeze(built.network, trained_groups, train_text)

    @property
    def clip_model(self) -> ClipModel:
        """The model as it is now, to be written with what it was adapted to."""
        return self._built

    def init_weights(self) -> None:
        """Does nothing: the weights are there from the start, and towers must keep theirs."""

    def train(self, mode: bool = True) -> CLIPAdaptation:
        """Sets the mode; with ``norm_eval`` BatchNorm stays in evaluation mode."""
        super().train(mode)
        self._class_features = None
        if self.norm_eval:
            for module in self.encoder.network.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(
        self,
        inputs: Tensor,
        label: Tensor | None = None,
        overlap: Tensor | None = None,
        offsets: Tensor | None = None,
        jittered: Tensor | None = None,
        mode: str = 'tensor',
    ) -> dict[str, Tensor] | list[dict] | Tensor:
        """Encodes, trains or judges crops, as :class:`mmdsym.clip.crop_dataset.CropDataset` has.

        Args:
            inputs: (N, views, 3, size, size), uint8, RGB.
            label: (N,), class indices.
            overlap: (N,), IoU of the shown box with the labelled one.
            offsets: (N, 4), where the labelled borders lie.
            jittered: (N,), bool; handed on to the metric.
            mode: ``'tensor'`` (features), ``'loss'`` or ``'predict'``.

        Returns:
            Features (N, D); losses; or for each crop a dict of probabilities, truth, and, where the
            head is there, expected overlap.

        Raises:
            UserError: The crops have another number of views than the model.
        """
        if inputs.shape[1] != len(self.views):
            raise UserError(
                f'the crops have {inputs.shape[1]} views, the CLIP model {len(self.views)}: give '
                'model and data set the same views.'
            )
        crops = inputs.to(self.encoder.mean)
        if mode == 'tensor':
            return self.encoder.encode(crops)
        if mode == 'loss':
            return self._losses(crops, label, overlap, offsets)
        return self._predict(crops, label, overlap, jittered)

    def _losses(
        self, crops: Tensor, label: Tensor, overlap: Tensor, offsets: Tensor
    ) -> dict[str, Tensor]:
        embedding, trunk = self._encode(crops)
        class_features = self._draw_class_features()
        # Half precision would round logits of up to 100, and the floor of logarithms, away.
        with torch.autocast(crops.device.type, enabled=False):
            return self._compare(embedding, class_features, trunk, label, overlap, offsets)

    def _compare(
        self,
        embedding: Tensor,
        class_features: Tensor,
        trunk: Tensor | None,
        label: Tensor,
        overlap: Tensor,
        offsets: Tensor,
    ) -> dict[str, Tensor]:
        logits = self._logits(embedding, class_features)
        clean = label == len(self.classes)
        shows_class = clean | (overlap >= self.min_overlap)
        to_text, to_image = class_contrastive_losses(
            logits[shows_class], label[shows_class], self.label_smoothing
        )
        right = (logits.detach().argmax(dim=1) == label)[shows_class].float()
        losses = dict(loss_to_text=to_text, loss_to_image=0.5 * to_image, accuracy=right.mean())
        if self.extent_head is not None:
            found = self.extent_head.loss(trunk[~clean], overlap[~clean], offsets[~clean])
            losses['loss_overlap'], losses['loss_offsets'] = (self.extent_weight * x for x in found)
        return losses

    def _predict(
        self, crops: Tensor, label: Tensor, overlap: Tensor, jittered: Tensor
    ) -> list[dict]:
        embedding, trunk = self._encode(crops)
        if self._class_features is None:
            self._class_features = self._all_class_features()
        with torch.autocast(crops.device.type, enabled=False):
            probabilities = self._logits(embedding, self._class_features).softmax(dim=1)
            judges_extent = self.extent_head is not None
            expected = self.extent_head.expected_overlap(trunk) if judges_extent else None
        results = [
            dict(probabilities=p, label=truth, overlap=true_overlap, jittered=moved)
            for p, truth, true_overlap, moved in zip(
                probabilities, label, overlap, jittered, strict=True
            )
        ]
        if judges_extent:
            for result, value in zip(results, expected, strict=True):
                result['expected_overlap'] = value
        return results

    def _encode(self, crops: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns unit vectors of each view, (N, views, width), and the trunk's, (N, D)."""
        count, views = crops.shape[:2]
        parts = self.encoder.encode_parts(crops.flatten(0, 1))
        embedding = parts['embedding'].unflatten(0, (count, views))
        if 'trunk' not in parts:
            return embedding, None
        return embedding, parts['trunk'].reshape(count, -1) / views**0.5

    def _logits(self, embedding: Tensor, class_features: Tensor) -> Tensor:
        scale = self.encoder.network.logit_scale.exp().clamp(max=MAX_LOGIT_SCALE)
        return scale * (embedding @ class_features.T).mean(dim=1)

    def _draw_class_features(self) -> Tensor:
        """Encodes a few sentences of each class, drawn anew each time."""
        chosen, start = [], 0
        for count in self._counts:
            order = torch.randperm(count)[: self.prompts_per_class]
            chosen.append(start + order.repeat(self.prompts_per_class)[: self.prompts_per_class])
            start += count
        tokens = self.tokens[torch.cat(chosen).to(self.tokens.device)]
        found = F.normalize(self.encoder.network.encode_text(tokens).float(), dim=-1)
        means = found.unflatten(0, (len(self._counts), -1)).mean(dim=1)
        return F.normalize(means, dim=-1)

    def _all_class_features(self) -> Tensor:
        encode = self.encoder.network.encode_text
        chunks = self.tokens.split(_PROMPTS_AT_ONCE)
        found = F.normalize(torch.cat([encode(chunk) for chunk in chunks]).float(), dim=-1)
        means = [of_class.mean(dim=0) for of_class in found.split(self._counts)]
        return F.normalize(torch.stack(means), dim=-1)
