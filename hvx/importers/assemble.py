"""What every importer ends with: tensors under native names, made a model over a backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hvx.config import BackboneConfig, ModelConfig
from hvx.data.words import Vocabulary
from hvx.errors import HvxError
from hvx.models.backbone import build_backbone
from hvx.models.checkpoint import VQAModel, filled_head

_PROBE = 96
"""Pixels along a side of an image just large enough for any of torchvision's networks."""

AHEAD_OF_LAST_RELU, BEHIND_LAST_RELU = "layer4.2.add", "layer4"
"""Nodes of ResNet-152 that yield features with the last block's ReLU left out, and with it."""


def at_node(backbone: BackboneConfig, node: str) -> BackboneConfig:
    """The backbone, cut at ``node`` unless it says itself where."""
    said = "node" in backbone.model_fields_set
    return backbone if said else backbone.model_copy(update={"node": node})


def assemble(
    config: ModelConfig, head: dict[str, Tensor], words: Sequence[str], answers: Sequence[str], source: str
) -> VQAModel:
    """A model from imported tensors.

    Args:
        config: what the foreign files say of the model, and the backbone to put under it.
        head: the head's tensors under the names of ``MLB``'s state dict, float32.
        words: in the order of the word table, its padding row left out.
        answers: in the order of the classifier.
        source: names the foreign file in errors.

    Raises:
        HvxError: a tensor is missing or misshapen, the backbone cannot be built, or its features are not
            those that the head reads.
    """
    own = {name: tensor.detach().float().contiguous() for name, tensor in head.items()}
    filled = filled_head(config, own, len(words), len(answers), source)
    backbone = build_backbone(config.backbone)
    small = torch.zeros(1, 3, _PROBE, _PROBE)
    with torch.inference_mode():
        features = backbone(small)
    if features.ndim != 4 or features.shape[1] != filled.channels:
        raise HvxError(
            f"{source}: the head reads features of {filled.channels} channels on a lattice; "
            f"{config.backbone.architecture} at {config.backbone.node} yields {tuple(features.shape[1:])}"
        )
    return VQAModel(config, backbone, filled, Vocabulary(tuple(words)), list(answers))
