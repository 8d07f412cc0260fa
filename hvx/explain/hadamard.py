"""Eqs 2 and 3: what the joint's deviation from each of its factors says of image and words."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hvx.models.joint import Joint
from hvx.models.mlb import MLB


@dataclass
class HeadGradients:
    """The joint of N questions, and its two gradients at the head's inputs.

    Attributes:
        joint: the forward pass, detached.
        features: (N, M, S, S), the cotangent (V − F) ∂V/∂features: Eq. 2 as far as the features.
        embeddings: (N, T, E), (Q − F) ∂Q/∂q: Eq. 3.
    """

    joint: Joint
    features: Tensor
    embeddings: Tensor


def head_gradients(
    model: MLB, features: Tensor, images: Tensor, rows: Tensor, lengths: Tensor
) -> HeadGradients:
    """Eqs 2 and 3 through the head, F held constant in both.

    V depends on the features through the attention too; Eq. 3 goes through Q alone.

    Args:
        model: the Hadamard model.
        features: (B, M, S, S) of the batch's images.
        images: (N) the image, 0 … B − 1, of each question.
        rows: (N, T) rows of the word table.
        lengths: (N) tokens of each question.
    """
    # A copy of the features for each question, so that each question's gradient stays its own.
    own = features[images].requires_grad_()
    every = torch.arange(len(images), device=images.device)
    embeddings = model.encoder.embed(rows).detach().requires_grad_()
    with torch.enable_grad():
        joint = model(own, model.image_terms(own), every, embeddings, lengths)
        constant = joint.product.detach()
        to_features = torch.autograd.grad(
            joint.visual, own, joint.visual.detach() - constant, retain_graph=True
        )[0]
        to_words = torch.autograd.grad(joint.textual, embeddings, joint.textual.detach() - constant)[0]
    return HeadGradients(joint.detach(), to_features, to_words)
