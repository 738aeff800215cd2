"""CLIP's opinion on boxes: which class each of them shows, if any."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmdsym.class_prompts import Prompts
from mmdsym.clip.brought import brought_quality, choose_classes
from mmdsym.clip.encoder import CropEncoder
from mmdsym.clip.foreign_veto import nearest_likeness
from mmdsym.clip.labelled_crops import read_labelled_crops
from mmdsym.clip.model_building import build_clip
from mmdsym.clip.prompts import build_prompts
from mmdsym.clip.prototype_source import PrototypeSource, embed_crops
from mmdsym.clip.prototypes import LabelledFeatures, Prototypes
from mmdsym.clip.views import CropView
from mmdsym.errors import UserError
from mmdsym.evaluation.held_out_quality import judge
from mmdsym.evaluation.temperature import fit_temperature
from mmdsym.registry import MODELS

EVIDENCE = ('text', 'prototypes', 'both')
_PROMPTS_AT_ONCE = 256
_IMAGES_TO_JUDGE_BY = 100


class BoxScores(NamedTuple):
    """What CLIP thinks of the N boxes of one image.

    A box that shows no pixel of its image has features of zero, agreement 0 and background 1.

    Attributes:
        agreement: (N,), probability of the box's own class, in [0, 1].
        background: (N,), probability of a normal surface, in [0, 1].
        distribution: (N, classes + 1), sums to 1, background last.
        features: (N, D), unit vectors.
    """

    agreement: Tensor
    background: Tensor
    distribution: Tensor
    features: Tensor


@MODELS.register_module()
class CLIPScorer(nn.Module):
    """Scores boxes by what sentences and labelled crops say about their crops.

    Args:
        classes: Class names, or a COCO json that has them; may be left out with ``weights``.
        model: See :func:`mmdsym.clip.model_building.build_clip`.
        pretrained: Likewise.
        image_pretrained: Likewise.
        weights: Likewise; such a model brings classes, prompts and views along, and what is given
            here goes before it.
        prompts: Sentences of each class, see :func:`mmdsym.clip.prompts.build_prompts`; by default
            those that ``weights`` were adapted with.
        background_prompts: Sentences of a normal surface.
        views: How each box is looked at, as arguments of :class:`mmdsym.clip.views.CropView`.
        features: What a feature consists of, see :class:`mmdsym.clip.encoder.CropEncoder`; by
            default whatever the extent head of ``weights`` needs.
        evidence: ``'text'`` (sentences), ``'prototypes'`` (labelled crops) or ``'both'``; without
            ``prototypes`` it is the sentences alone.
        prototypes: Arguments of :class:`mmdsym.clip.prototype_source.PrototypeSource`.
        max_crops: Most crops in one forward pass.

    Raises:
        UserError: Anything that cannot be right, see the parts.
    """

    def __init__(
        self,
        classes: Sequence[str] | str | None = None,
        model: str | Mapping | None = None,
        pretrained: str | None = None,
        image_pretrained: str | None = None,
        weights: str | PathLike | None = None,
        prompts: Prompts | None = None,
        background_prompts: Sequence[str] | None = None,
        views: Sequence[Mapping] | None = None,
        features: Sequence[str] | None = None,
        evidence: str = 'both',
        prototypes: Mapping | None = None,
        max_crops: int = 256,
    ) -> None:
        super().__init__()
        if evidence not in EVIDENCE:
            raise UserError(f"the evidence '{evidence}' does not exist: use one of {EVIDENCE}.")
        if evidence == 'prototypes' and prototypes is None:
            raise UserError("evidence='prototypes' needs labelled crops: set prototypes.")
        built = build_clip(model, pretrained, image_pretrained, weights)
        brought = built.settings
        self.classes = choose_classes(classes, brought.get('classes'), weights)
        self.prompts = build_prompts(self.classes, prompts, background_prompts, brought)
        chosen = [CropView(**view) for view in views or brought.get('views') or [{}]]
        if features is None:
            features = ('embedding',) if built.extent_head is None else ('embedding', 'trunk')
        self.encoder = CropEncoder(built, chosen, features, max_crops)
        self.extent_head = built.extent_head if 'trunk' in self.encoder.parts else None
        self.evidence = evidence
        self.temperature = 1.0
        self.prototypes: Prototypes | None = None
        self._known: Tensor | None = None
        self.held_out = brought_quality(brought, prompts, background_prompts, views, prototypes)
        self._is_adapted = bool(brought)
        self._source = None if prototypes is None else PrototypeSource(**prototypes)
        self._tokens = [built.tokenise(sentences) for sentences in self.prompts]
        self._text_features: Tensor | None = None
        self._base_fingerprint: str | None = None
        self._prepared = self._source is None
        self.requires_grad_(False)
        self.eval()
        self.encoder.fold()

    @property
    def fingerprint(self) -> str:
        """Changes when, and only when, the same boxes would be scored differently."""
        self.prepare()
        digest = hashlib.sha256(self._fingerprint_of_model().encode())
        digest.update(json.dumps([self.prompts, self.evidence, self.temperature]).encode())
        if self.prototypes is not None:
            digest.update(json.dumps([self.prototypes.alpha, self.prototypes.beta]).encode())
            digest.update(_bytes_of(self.prototypes.keys) + _bytes_of(self.prototypes.labels))
        return digest.hexdigest()

    def train(self, mode: bool = True) -> CLIPScorer:
        """Stays in evaluation mode: nothing of it learns here."""
        return super().train(False)

    def prepare(self) -> None:
        """Builds prototypes and temperature from the labelled split, unless that is done.

        Raises:
            UserError: See :class:`mmdsym.clip.prototype_source.PrototypeSource`.
        """
        if self._prepared:
            return
        # Features that are kept come from the precision that this processor computes in.
        model = f'{self._fingerprint_of_model()} {self.encoder.precision}'
        keys = None
        if self.evidence != 'text':
            keys = self._source.keys(self.classes, self.embed, model)
        held_out = self._source.held_out(self.classes, self.embed, model)
        self._prepared = True
        self.fit(keys, held_out)

    @torch.no_grad()
    def fit(self, keys: LabelledFeatures | None, held_out: LabelledFeatures | None) -> None:
        """Takes prototypes from labelled features, and what weighs them from held-out ones.

        Args:
            keys: Of any crops that are not held out; ``None`` for sentences alone.
            held_out: To choose alpha, beta and temperature on.
        """
        self._prepared = True
        if keys is not None:
            prototypes = Prototypes(keys.features, keys.labels, len(self.classes) + 1)
            if held_out is not None:
                text = self._text_logits(held_out.features.to(self.device)).cpu()
                text = None if self.evidence == 'prototypes' else text
                prototypes = prototypes.tuned(text, held_out)
            self.prototypes = prototypes.to(self.device)
            self._known = None
        if held_out is None:
            return
        logits = self.logits(held_out.features.to(self.device)).cpu()
        self.temperature, _ = fit_temperature(logits, held_out.labels)
        self.held_out = judge((logits / self.temperature).softmax(dim=1), held_out.labels)
        self._tell('held-out crops')

    @torch.no_grad()
    def judge_by(self, ann_file: str | PathLike, images_dir: str | PathLike) -> None:
        """Finds out whether sentences alone are better than chance, where nobody has.

        Crops that became prototypes, or that the model was adapted to, would praise it; for those
        the held-out ones are there.

        Args:
            ann_file: COCO json of labelled images.
            images_dir: Their folder.
        """
        self.prepare()
        if self.held_out is not None or self.prototypes is not None or self._is_adapted:
            return
        crops = read_labelled_crops(ann_file, images_dir)
        step = -(-len(crops.images) // _IMAGES_TO_JUDGE_BY)
        found = embed_crops(replace(crops, images=crops.images[::step]), self.embed)
        probabilities = self.distribution(found.features.to(self.device)).cpu()
        self.held_out = judge(probabilities, found.labels)
        self._tell('labelled crops')

    @torch.no_grad()
    def embed(self, images: Sequence[Tensor], boxes: Sequence[Tensor]) -> list[Tensor]:
        """Computes the features of boxes.

        Args:
            images: (C, H, W) each, grey or RGB, in 0..255, uint8 or floating point.
            boxes: (N, 4) each, x1 y1 x2 y2 in pixels of that image; any values, NaN included.

        Returns:
            (N, D) each, unit vectors; zeros for a box that shows nothing of its image.
        """
        return self.encoder(images, boxes)

    def score(
        self, images: Sequence[Tensor], boxes: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> list[BoxScores]:
        """Scores the boxes of a batch of images in one forward pass.

        Args:
            images: As in :meth:`embed`.
            boxes: As in :meth:`embed`.
            labels: (N,) each, class indices.
        """
        features = self.embed(images, boxes)
        return [
            self.score_features(mine, of_image)
            for mine, of_image in zip(features, labels, strict=True)
        ]

    @torch.no_grad()
    def score_features(self, features: Tensor, labels: Tensor) -> BoxScores:
        """Scores boxes whose features are known, without a forward pass.

        Args:
            features: (N, D), from :meth:`embed`.
            labels: (N,), class indices.

        Returns:
            The scores, in the order of the features.
        """
        features = features.to(self.device)
        distribution = self.distribution(features)
        own = distribution.gather(1, labels.to(self.device).long()[:, None])[:, 0]
        return BoxScores(own, distribution[:, -1], distribution, features)

    @torch.no_grad()
    def distribution(self, features: Tensor) -> Tensor:
        """Returns the probabilities of the classes and, last, the background.

        Args:
            features: (N, D), from :meth:`embed`.

        Returns:
            (N, classes + 1).
        """
        self.prepare()
        probabilities = (self.logits(features) / self.temperature).softmax(dim=1)
        nothing = torch.zeros_like(probabilities)
        nothing[:, -1] = 1
        seen = features.abs().sum(dim=1, keepdim=True) > 0
        return torch.where(seen, probabilities, nothing)

    @torch.no_grad()
    def expected_overlap(self, features: Tensor) -> Tensor | None:
        """Estimates how well boxes fit their defects.

        Args:
            features: (N, D), from :meth:`embed`.

        Returns:
            Expected IoU, (N,) in [0, 1], 0 for a box that shows nothing; ``None`` where no adapted
            model brought an extent head along.
        """
        if self.extent_head is None:
            return None
        features = features.to(self.device)
        expected = self.extent_head.expected_overlap(self.encoder.trunk_of(features))
        return expected * (features.abs().sum(dim=1) > 0)

    @torch.no_grad()
    def likeness(self, features: Tensor, labels: Tensor) -> Tensor:
        """Says how much crops look like labelled ones of their class.

        Args:
            features: (N, D), from :meth:`embed`.
            labels: (N,), class indices.

        Returns:
            (N,): the mean cosine with the nearest labelled crops of the class, in the image tower's
            own space where it is known; without labelled crops the agreement.
        """
        self.prepare()
        features, labels = features.to(self.device), labels.to(self.device).long()
        if self.prototypes is None:
            return self.score_features(features, labels).agreement
        if self._known is None:
            self._known = self._look_of(self.prototypes.keys.to(self.device))
        look = self._look_of(features)
        known_labels = self.prototypes.labels.to(self.device)
        return nearest_likeness(look, labels, self._known.to(self.device), known_labels)

    def _look_of(self, features: Tensor) -> Tensor:
        return self.encoder.trunk_of(features) if 'trunk' in self.encoder.parts else features

    def logits(self, features: Tensor) -> Tensor:
        """Returns what sentences and prototypes say together, before the temperature.

        Args:
            features: (N, D), from :meth:`embed`.

        Returns:
            (N, classes + 1).
        """
        if self.prototypes is None:
            return self._text_logits(features)
        logits = self.prototypes.logits(features)
        return logits if self.evidence == 'prototypes' else logits + self._text_logits(features)

    @property
    def device(self) -> torch.device:
        """Where it computes; crops come from anywhere."""
        return self.encoder.mean.device

    def _text_logits(self, features: Tensor) -> Tensor:
        if self._text_features is None or self._text_features.device != features.device:
            self._text_features = self._encode_prompts()
        embedding = self.encoder.embedding_of(features)
        scale = self.encoder.network.logit_scale.exp().clamp(max=100)
        return scale * (embedding @ self._text_features.T).mean(dim=1)

    def _encode_prompts(self) -> Tensor:
        counts = [len(tokens) for tokens in self._tokens]
        chunks = torch.cat(self._tokens).to(self.device).split(_PROMPTS_AT_ONCE)
        encode = self.encoder.network.encode_text
        found = torch.cat([encode(chunk, normalize=True) for chunk in chunks])
        means = torch.stack([of_class.mean(dim=0) for of_class in found.split(counts)])
        return nn.functional.normalize(means, dim=-1)

    def _fingerprint_of_model(self) -> str:
        if self._base_fingerprint is None:
            encoder = self.encoder
            settings = [encoder.image_size, encoder.parts, [vars(v) for v in encoder.views]]
            settings += [encoder.mean.tolist(), encoder.std.tolist(), self.classes]
            digest = hashlib.sha256(json.dumps(settings).encode())
            state = {**encoder.network.state_dict()}
            if self.extent_head is not None:
                state.update(self.extent_head.state_dict(prefix='extent_head.'))
            for name, tensor in sorted(state.items()):
                digest.update(name.encode() + _bytes_of(tensor))
            self._base_fingerprint = digest.hexdigest()
        return self._base_fingerprint

    def _tell(self, crops: str) -> None:
        quality = self.held_out
        if quality.better_than_chance:
            message = (
                f'CLIP scorer: {quality.accuracy:.1%} of {quality.crops} {crops} are '
                f'right, calibration error {quality.calibration_error:.3f}.'
            )
        else:
            message = (
                f'CLIP scorer: no better than chance on {quality.crops} {crops} '
                f'({quality.accuracy:.1%} right); give it prompts that say what the classes look '
                'like, more labels, or another model.'
            )
        print_log(message, logger='current')


def _bytes_of(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
