"""The peers that hvx is compared with: what they are given, and how they are called."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hvx.models.base import HadamardHead

Explain = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Images (B, C, H, W), and of a question on each rows (B, T) and length (B) → the gradient at the images."""


class Score(nn.Module):
    """Σ (V − F) V with V − F held constant: a number whose gradient at the image is Eq. 2.

    So peers, which differentiate a score, compute what hvx does.

    Args:
        network: torchvision's own network up to the features, its ReLUs modules.
        head: the Hadamard model.
    """

    def __init__(self, network: nn.Module, head: HadamardHead) -> None:
        super().__init__()
        self.network, self.head = network, head
        self.question: tuple[Tensor, Tensor] | None = None

    def forward(self, images: Tensor) -> Tensor:
        assert self.question is not None
        rows, lengths = self.question
        features = self.network(images)
        images_of = torch.arange(len(images), device=rows.device)
        terms = self.head.image_terms(features)
        joint = self.head(features, terms, images_of, self.head.encoder.embed(rows), lengths)
        return ((joint.visual - joint.product).detach() * joint.visual).sum(1, keepdim=True)


def captum(score: Score, device: torch.device) -> Explain:
    """captum's GuidedBackprop."""
    from captum.attr import GuidedBackprop

    del device
    method = GuidedBackprop(score)

    def explain(images: Tensor, rows: Tensor, lengths: Tensor) -> Tensor:
        score.question = rows, lengths
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # says each time that it sets hooks
            found: Tensor = method.attribute(images, target=0)
        return found

    return explain


def grad_cam(score: Score, device: torch.device) -> Explain:
    """pytorch-grad-cam's GuidedBackpropReLUModel, which takes one image at a time."""
    from pytorch_grad_cam import GuidedBackpropReLUModel

    method: Any = GuidedBackpropReLUModel(model=score, device=device)

    def explain(images: Tensor, rows: Tensor, lengths: Tensor) -> Tensor:
        score.question = rows, lengths
        gradient = torch.from_numpy(method(images, target_category=0))  # (H, W, C)
        return gradient.permute(2, 0, 1)[None]

    return explain


PEERS: dict[str, Callable[[Score, torch.device], Explain]] = {"captum": captum, "grad-cam": grad_cam}
"""By their names on PyPI."""
