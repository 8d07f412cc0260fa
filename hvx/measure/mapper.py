"""Maps of a model by any of the methods.

Methods that pull gradients back to the pixels share the backbone's forward pass: one for each image, plain or
with guided ReLUs. Captum's integrated gradients repeat it, as they must; its guided backpropagation passes
over functional ReLUs in silence, so that hvx's own rule stands in.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hvx.explain.guided import GuidedPullback, guided
from hvx.explain.scores import heat_map, standardized
from hvx.measure.methods import ATTENTION, METHODS, PATH_STEPS, PROPOSED
from hvx.measure.subject import Batch
from hvx.models.checkpoint import VQAModel
from hvx.models.joint import Joint

_PATH_PIXELS = 1 << 21
"""Of images at a time on the paths of integrated gradients: 10 of 448×448."""


class Mapper:
    """Makes maps of a model by any of the methods.

    Args:
        model: the network, on its device.
        seed: of the random map.

    Raises:
        HvxError: the backbone is not a ReLU network.
    """

    def __init__(self, model: VQAModel, seed: int) -> None:
        self.model, self._seed = model, seed
        self._networks = {"plain": model.backbone.network, "guided": guided(model.backbone.network)}

    def maps(self, names: Iterable[str], batch: Batch) -> dict[str, np.ndarray]:
        """Maps of a batch's N questions by method: (N, H, W) or, on the lattice, (N, S, S), float32."""
        wanted = set(names)
        found: dict[str, Tensor] = {}
        plain = {name for name in wanted if METHODS[name].family == "plain"}
        if plain:
            found |= self._plain(_Pass(self.model, self._networks["plain"], batch), plain)
        pulled = {name for name in wanted if METHODS[name].family == "guided"} | (wanted & {PROPOSED})
        if pulled:
            found |= self._guided(_Pass(self.model, self._networks["guided"], batch), pulled)
        lattice = {name for name in wanted if METHODS[name].family == "head"} | (wanted & {ATTENTION})
        if lattice:
            found |= self._lattice(_Head(self.model, self.model.backbone(batch.inputs), batch), lattice)
        if "integrated-gradients" in wanted:
            found["integrated-gradients"] = integrated_gradients(self.model, batch, PATH_STEPS).abs().sum(1)
        if "center" in wanted:
            found["center"] = _center(batch)
        if "random" in wanted:
            found["random"] = _random(batch, self._seed)
        return {name: map.detach().cpu().numpy().astype(np.float32) for name, map in found.items()}

    def _plain(self, own: _Pass, wanted: set[str]) -> dict[str, Tensor]:
        found = {}
        if "unguided" in wanted:
            found["unguided"] = heat_map(standardized(own.pull(own.head.deviation)))
        if wanted & {"gradient", "input-x-gradient"}:
            gradient = own.pull(own.head.answer)
            found["gradient"] = gradient.abs().sum(1)
            found["input-x-gradient"] = (own.batch.own_inputs() * gradient).abs().sum(1)
        return {name: map for name, map in found.items() if name in wanted}

    def _guided(self, own: _Pass, wanted: set[str]) -> dict[str, Tensor]:
        found = {}
        if PROPOSED in wanted:
            found[PROPOSED] = heat_map(standardized(own.pull(own.head.deviation)))
        if "free-product" in wanted:
            found["free-product"] = heat_map(standardized(own.pull(own.head.free)))
        if wanted & {"guided-backpropagation", "guided-grad-cam"}:
            gradient = own.pull(own.head.answer).abs().sum(1)
            cam = own.head.grad_cam().unsqueeze(1)
            enlarged = functional.interpolate(cam, gradient.shape[1:], mode="bilinear", align_corners=False)
            found["guided-backpropagation"] = gradient
            found["guided-grad-cam"] = gradient * enlarged[:, 0]
        return {name: map for name, map in found.items() if name in wanted}

    def _lattice(self, head: _Head, wanted: set[str]) -> dict[str, Tensor]:
        found = {}
        if "grad-cam" in wanted:
            found["grad-cam"] = head.grad_cam()
        if "grad-cam-attention" in wanted:
            assert head.joint.attention is not None
            found["grad-cam-attention"] = head.grad_cam() * head.joint.attention.sum(1)
        if "hirescam" in wanted:
            found["hirescam"] = head.hirescam()
        if "cam" in wanted:
            found["cam"] = head.cam()
        if ATTENTION in wanted:
            assert head.joint.attention is not None
            found[ATTENTION] = head.joint.attention.sum(1)
        return found


class _Head:
    """The head over a batch's features (B, M, S, S), and gradients at each question's own copy of them."""

    def __init__(self, model: VQAModel, features: Tensor, batch: Batch) -> None:
        self._model, self._batch = model.head, batch
        self._own = features.detach()[batch.images].requires_grad_()
        self._every = torch.arange(len(batch), device=features.device)
        with torch.enable_grad():
            self.joint = self._forward(self._model.image_terms(self._own))

    def _forward(self, terms: Tensor) -> Joint:
        embeddings = self._model.encoder.embed(self._batch.rows)
        joint: Joint = self._model(self._own, terms, self._every, embeddings, self._batch.lengths)
        return joint

    def _back(self, output: Tensor, cotangent: Tensor | None = None) -> Tensor:
        return torch.autograd.grad(output, self._own, cotangent, retain_graph=True)[0]

    @cached_property
    def answer(self) -> Tensor:
        """∂y/∂f (N, M, S, S)."""
        return self._back(self.joint.logits[self._every, self._batch.answers].sum())

    @cached_property
    def deviation(self) -> Tensor:
        """(V − F) ∂V/∂f, F held constant: Eq. 2 as far as the features."""
        return self._back(self.joint.visual, (self.joint.visual - self.joint.product).detach())

    @cached_property
    def free(self) -> Tensor:
        """∂ ½‖V − F‖² / ∂f with F = Q ∘ V a function of the image too."""
        with torch.enable_grad():
            distance = (self.joint.visual - self.joint.product).square().sum() / 2
        return self._back(distance)

    def grad_cam(self) -> Tensor:
        """Grad-CAM (N, S, S): channels weighted by their mean gradient, what speaks against y cut off."""
        weights = self.answer.mean((2, 3), keepdim=True)
        return (weights * self._own.detach()).sum(1).clamp(min=0)

    def hirescam(self) -> Tensor:
        """HiResCAM (N, S, S): as Grad-CAM, each cell by its own gradient, so that α is not averaged away."""
        return (self.answer * self._own.detach()).sum(1).clamp(min=0)

    def cam(self) -> Tensor:
        """CAM (N, S, S), signed.

        Zhou et al. pool features by their mean and read y from them by a linear layer; here the attention
        pools, its weights held, and the head is linear in its neighborhood. Without glimpses the mean pools.
        """
        gradient = self.answer
        if self.joint.attention is not None:
            with torch.enable_grad():
                held = self._forward(self._model.image_terms(self._own.detach()))
                gradient = self._back(held.logits[self._every, self._batch.answers].sum())
        return (gradient * self._own.detach()).sum(1)


class _Pass:
    """A forward pass of a backbone over a batch's images, the head over it, and the way back."""

    def __init__(self, model: VQAModel, network: torch.nn.Module, batch: Batch) -> None:
        self.batch, self._pullback = batch, GuidedPullback(network, batch.inputs)
        self.head = _Head(model, self._pullback.features, batch)

    def pull(self, cotangents: Tensor) -> Tensor:
        """Cotangents (N, M, S, S) → gradients at each question's image (N, C, H, W), a round at a time.

        A round takes one question of each image that has one left.
        """
        images = self.batch.images.tolist()
        gradients = cotangents.new_empty((len(images), *self.batch.inputs.shape[1:]))
        ranks = [images[:place].count(image) for place, image in enumerate(images)]
        for rank in range(max(ranks) + 1):
            places = [place for place, own in enumerate(ranks) if own == rank]
            shown = [images[place] for place in places]
            cotangent = cotangents.new_zeros((len(self.batch.inputs), *cotangents.shape[1:]))
            cotangent[shown] = cotangents[places]
            gradients[places] = self._pullback.pull(cotangent)[shown]
        return gradients


def integrated_gradients(model: VQAModel, batch: Batch, steps: int) -> Tensor:
    """Captum's integrated gradients of each question's answer (N, C, H, W), from input 0, the mean color."""
    from captum.attr import IntegratedGradients

    embeddings = model.head.encoder.embed(batch.rows).detach()

    def logits(images: Tensor, question: Tensor) -> Tensor:
        features = model.backbone(images)
        every = torch.arange(len(images), device=images.device)
        terms = model.head.image_terms(features)
        joint: Joint = model.head(features, terms, every, embeddings[question], batch.lengths[question])
        return joint.logits

    method, every = IntegratedGradients(logits), torch.arange(len(batch), device=batch.inputs.device)
    height, width = batch.inputs.shape[-2:]
    at_once = max(1, _PATH_PIXELS // (height * width))
    # Captum holds all questions of a call at once, whatever its internal batch.
    found = [
        method.attribute(
            batch.inputs[batch.images[questions]],
            target=batch.answers[questions],
            additional_forward_args=(questions,),
            n_steps=steps,
            internal_batch_size=at_once,
        )
        for questions in every.split(at_once)
    ]
    return torch.cat(found)


def _center(batch: Batch) -> Tensor:
    height, width = batch.inputs.shape[-2:]
    y, x = (torch.linspace(-2, 2, side).square() for side in (height, width))  # in units of σ
    blob = torch.exp(-(y.unsqueeze(1) + x) / 2)
    return blob.expand(len(batch), -1, -1)


def _random(batch: Batch, seed: int) -> Tensor:
    shape = tuple(batch.inputs.shape[-2:])
    maps = [np.random.default_rng([seed, place]).random(shape, np.float32) for place in batch.places]
    return torch.from_numpy(np.stack(maps))
