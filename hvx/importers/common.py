"""The last step of every importer: builds a model from tensors with native names and a backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hvx.config import BackboneConfig, ModelConfig
from hvx.data.tokenize import Vocabulary
from hvx.errors import HvxError
from hvx.models.backbone import build_backbone
from hvx.models.checkpoint import VQAModel, load_head

_SAMPLE_SIZE = 96
"""Side in pixels of an image just large enough for all of torchvision's networks."""

AHEAD_OF_LAST_RELU, BEHIND_LAST_RELU = "layer4.2.add", "layer4"
"""Nodes of ResNet-152 that yield features before and after the last block's ReLU."""


def at_node(backbone: BackboneConfig, node: str) -> BackboneConfig:
    """The backbone with the feature node ``node``, unless it sets one itself."""
    has_node = "node" in backbone.model_fields_set
    return backbone if has_node else backbone.model_copy(update={"node": node})


def assemble(
    config: ModelConfig, head: dict[str, Tensor], words: Sequence[str], answers: Sequence[str], source: str
) -> VQAModel:
    """A model from imported tensors.

    Args:
        config: the model's config from the external files, with the backbone to use.
        head: the head's tensors under the names of its state dict, float32.
        words: in the order of the word table, without its padding row.
        answers: in the order of the classifier.
        source: the external file, for errors.

    Raises:
        HvxError: a tensor is missing or has a wrong shape, the backbone cannot be built, or its features do
            not fit the head.
    """
    tensors = {name: tensor.detach().float().contiguous() for name, tensor in head.items()}
    module = load_head(config, tensors, len(words), len(answers), source)
    backbone = build_backbone(config.backbone)
    sample = torch.zeros(1, 3, _SAMPLE_SIZE, _SAMPLE_SIZE)
    with torch.inference_mode():
        features = backbone(sample)
    if features.ndim != 4 or features.shape[1] != module.channels:
        raise HvxError(
            f"{source}: the head reads features of {module.channels} channels on a grid; "
            f"{config.backbone.architecture} at {config.backbone.node} yields {tuple(features.shape[1:])}"
        )
    return VQAModel(config, backbone, module, Vocabulary(tuple(words)), list(answers))
