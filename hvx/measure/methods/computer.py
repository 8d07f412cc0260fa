"""Maps of a model by any of the methods.

Methods that compute gradients at the pixels share the backbone's forward pass, one for each image, by the
fused engine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hvx.explain.fused import FusedGuidedBackbone
from hvx.explain.scores import heat_map, standardized
from hvx.measure.methods.registry import ATTENTION, METHODS, PATH_STEPS, PROPOSED
from hvx.measure.sample import Batch
from hvx.models.base import HeadOutput
from hvx.models.checkpoint import VQAModel


class SaliencyComputer:
    """Makes maps of a model by any of the methods.

    Args:
        model: the network, on its device.
        seed: of the random map.
        engine: of the model's backbone with its present weights; a new one if None.

    Raises:
        HvxError: the backbone is not a ReLU network.
    """

    def __init__(self, model: VQAModel, seed: int, engine: FusedGuidedBackbone | None = None) -> None:
        self.model, self._seed = model, seed
        self._engine = engine or FusedGuidedBackbone(model.backbone.network)

    def maps(self, names: Iterable[str], batch: Batch) -> dict[str, np.ndarray]:
        """Maps of a batch's N questions by method: (N, H, W) or, on the grid, (N, S, S), float32."""
        wanted = set(names)
        maps: dict[str, Tensor] = {}
        plain_names = {name for name in wanted if METHODS[name].family == "plain"}
        if plain_names:
            maps |= self._plain(_Pass(self.model, self._engine, batch, guides=False), plain_names)
        guided_names = {name for name in wanted if METHODS[name].family == "guided"} | (wanted & {PROPOSED})
        if guided_names:
            maps |= self._guided(_Pass(self.model, self._engine, batch, guides=True), guided_names)
        grid_names = {name for name in wanted if METHODS[name].family == "head"} | (wanted & {ATTENTION})
        if grid_names:
            maps |= self._grid(_Head(self.model, self._engine.features(batch.inputs), batch), grid_names)
        if "integrated-gradients" in wanted:
            gradients = integrated_gradients(self.model, self._engine, batch, PATH_STEPS)
            maps["integrated-gradients"] = gradients.abs().sum(1)
        if "center" in wanted:
            maps["center"] = _center(batch)
        if "random" in wanted:
            maps["random"] = _random(batch, self._seed)
        return {name: map.detach().cpu().numpy().astype(np.float32) for name, map in maps.items()}

    def _plain(self, forward: _Pass, wanted: set[str]) -> dict[str, Tensor]:
        maps = {}
        if "unguided" in wanted:
            maps["unguided"] = heat_map(standardized(forward.vjp(forward.head.deviation)))
        if wanted & {"gradient", "input-x-gradient"}:
            gradient = forward.vjp(forward.head.answer)
            maps["gradient"] = gradient.abs().sum(1)
            maps["input-x-gradient"] = (forward.batch.own_inputs() * gradient).abs().sum(1)
        return {name: map for name, map in maps.items() if name in wanted}

    def _guided(self, forward: _Pass, wanted: set[str]) -> dict[str, Tensor]:
        maps = {}
        if PROPOSED in wanted:
            maps[PROPOSED] = heat_map(standardized(forward.vjp(forward.head.deviation)))
        if "free-product" in wanted:
            maps["free-product"] = heat_map(standardized(forward.vjp(forward.head.free)))
        if wanted & {"guided-backpropagation", "guided-grad-cam"}:
            gradient = forward.vjp(forward.head.answer).abs().sum(1)
            cam = forward.head.grad_cam().unsqueeze(1)
            enlarged = functional.interpolate(cam, gradient.shape[1:], mode="bilinear", align_corners=False)
            maps["guided-backpropagation"] = gradient
            maps["guided-grad-cam"] = gradient * enlarged[:, 0]
        return {name: map for name, map in maps.items() if name in wanted}

    def _grid(self, head: _Head, wanted: set[str]) -> dict[str, Tensor]:
        maps = {}
        if "grad-cam" in wanted:
            maps["grad-cam"] = head.grad_cam()
        if "grad-cam-attention" in wanted:
            assert head.joint.attention is not None
            maps["grad-cam-attention"] = head.grad_cam() * head.joint.attention.sum(1)
        if "hirescam" in wanted:
            maps["hirescam"] = head.hirescam()
        if "cam" in wanted:
            maps["cam"] = head.cam()
        if ATTENTION in wanted:
            assert head.joint.attention is not None
            maps[ATTENTION] = head.joint.attention.sum(1)
        return maps


class _Head:
    """The head applied to a batch's features (B, M, S, S), and gradients at each question's copy of them."""

    def __init__(self, model: VQAModel, features: Tensor, batch: Batch) -> None:
        self._model, self._batch = model.head, batch
        self._features = features.detach()[batch.images].requires_grad_()
        self._questions = torch.arange(len(batch), device=features.device)
        with torch.enable_grad():
            self.joint = self._forward(self._model.image_terms(self._features))

    def _forward(self, terms: Tensor) -> HeadOutput:
        embeddings = self._model.encoder.embed(self._batch.rows)
        joint: HeadOutput = self._model(
            self._features, terms, self._questions, embeddings, self._batch.lengths
        )
        return joint

    def _back(self, output: Tensor, cotangent: Tensor | None = None) -> Tensor:
        return torch.autograd.grad(output, self._features, cotangent, retain_graph=True)[0]

    @cached_property
    def answer(self) -> Tensor:
        """∂y/∂f (N, M, S, S)."""
        return self._back(self.joint.logits[self._questions, self._batch.answers].sum())

    @cached_property
    def deviation(self) -> Tensor:
        """(V − F) ∂V/∂f, F held constant: Eq. 2 down to the features."""
        return self._back(self.joint.visual, (self.joint.visual - self.joint.product).detach())

    @cached_property
    def free(self) -> Tensor:
        """∂ ½‖V − F‖² / ∂f with F = Q ∘ V also a function of the image."""
        with torch.enable_grad():
            distance = (self.joint.visual - self.joint.product).square().sum() / 2
        return self._back(distance)

    def grad_cam(self) -> Tensor:
        """Grad-CAM (N, S, S): channels weighted by their mean gradient, negative values set to 0."""
        weights = self.answer.mean((2, 3), keepdim=True)
        return (weights * self._features.detach()).sum(1).clamp(min=0)

    def hirescam(self) -> Tensor:
        """HiResCAM (N, S, S): as Grad-CAM, with the gradient of each cell, so that α is not averaged out."""
        return (self.answer * self._features.detach()).sum(1).clamp(min=0)

    def cam(self) -> Tensor:
        """CAM (N, S, S), signed.

        Zhou et al. average the features and compute y from them by a linear layer. Here the features are
        pooled by the attention, whose weights are held constant, and the head is linearized. Without glimpses
        the features are averaged.
        """
        gradient = self.answer
        if self.joint.attention is not None:
            with torch.enable_grad():
                joint = self._forward(self._model.image_terms(self._features.detach()))
                gradient = self._back(joint.logits[self._questions, self._batch.answers].sum())
        return (gradient * self._features.detach()).sum(1)


class _Pass:
    """A forward pass of the backbone and the head over a batch's images, and the backward pass.

    Args:
        guides: the backward pass follows the guided rule.
    """

    def __init__(self, model: VQAModel, engine: FusedGuidedBackbone, batch: Batch, guides: bool) -> None:
        self.batch, self._pullback, self._guides = batch, engine(batch.inputs), guides
        self.head = _Head(model, self._pullback.features, batch)

    def vjp(self, cotangents: Tensor) -> Tensor:
        """Cotangents (N, M, S, S) → gradients at each question's image (N, C, H, W), in rounds.

        Each round takes one question of each image that has one left.
        """
        images = self.batch.images.tolist()
        gradients = cotangents.new_empty((len(images), *self.batch.inputs.shape[1:]))
        ranks = [images[:question].count(image) for question, image in enumerate(images)]
        for round_ in range(max(ranks) + 1):
            questions = [question for question, rank in enumerate(ranks) if rank == round_]
            round_images = [images[question] for question in questions]
            cotangent = cotangents.new_zeros((max(round_images) + 1, *cotangents.shape[1:]))
            cotangent[round_images] = cotangents[questions]
            gradients[questions] = self._pullback.vjp(cotangent, self._guides)[round_images]
        return gradients


def integrated_gradients(model: VQAModel, engine: FusedGuidedBackbone, batch: Batch, steps: int) -> Tensor:
    """Integrated gradients of each question's answer (N, C, H, W), from input 0, the mean color.

    The path is sampled at Gauss-Legendre points, as captum does. Questions on one image share its forward
    passes along the path, which captum computes for each question.
    """
    points, weights = np.polynomial.legendre.leggauss(steps)  # on [-1, 1]
    total = torch.zeros_like(batch.own_inputs())
    for point, weight in zip(((points + 1) / 2).tolist(), (weights / 2).tolist(), strict=True):
        forward = _Pass(model, engine, replace(batch, inputs=point * batch.inputs), guides=False)
        total += weight * forward.vjp(forward.head.answer)
    return total * batch.own_inputs()


def _center(batch: Batch) -> Tensor:
    height, width = batch.inputs.shape[-2:]
    y, x = (torch.linspace(-2, 2, side).square() for side in (height, width))  # in units of σ
    blob = torch.exp(-(y.unsqueeze(1) + x) / 2)
    return blob.expand(len(batch), -1, -1)


def _random(batch: Batch, seed: int) -> Tensor:
    shape = tuple(batch.inputs.shape[-2:])
    maps = [np.random.default_rng([seed, position]).random(shape, np.float32) for position in batch.positions]
    return torch.from_numpy(np.stack(maps))
