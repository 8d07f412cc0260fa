"""Images and questions in, explanations out: the two stages of the pullback, batched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from hvx.data.words import padded, tokenizer
from hvx.device import leave_inference_mode, standard_mode
from hvx.errors import HvxError, OutOfMemory
from hvx.explain.hadamard import HeadPullback
from hvx.explain.lean import LeanNetwork, LeanPullback
from hvx.explain.scores import heat_map, standardized, token_saliency, token_z
from hvx.models.checkpoint import VQAModel
from hvx.models.joint import HadamardHead, Head, Joint

TOP = 5
"""Answers kept with their probabilities."""


@dataclass(kw_only=True)
class Answered:
    """What a model answers to N questions, and where it attends; tensors lie on one device.

    Attributes:
        tokens: each question's own tokens.
        unknown: of each question's own tokens, whether the vocabulary lacks it.
        answers: the five likeliest answers of each question, likeliest first.
        probabilities: theirs (N, 5).
        attention: α (N, G, S, S), None of a model without attention.
        textual_attention: (N, T), None of a model without one.
        earlier_attention: (N, 2, T), of a model that attends to words on three levels those to words and to
            phrases, ``textual_attention`` being the third's; None of others.
    """

    tokens: list[list[str]]
    unknown: list[list[bool]]
    answers: list[list[str]]
    probabilities: Tensor
    attention: Tensor | None
    textual_attention: Tensor | None = None
    earlier_attention: Tensor | None = None

    def cpu(self) -> Self:
        """The same with every tensor on the CPU."""
        tensors: dict[str, Any] = {
            name: value.cpu() for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **tensors)


@dataclass(kw_only=True)
class Explanations(Answered):
    """Explanations of N questions by Eqs 2 and 3; tensors lie on one device, heat maps of words on the CPU.

    Attributes:
        saliency: Eq. 10 (N, T), zero beyond each question's tokens.
        z: Eq. 11 (N, T), NaN beyond each question's tokens.
        heatmap: H (N, H, W), of the last block.
        gradient: ∇̂v of Eq. 9 (N, C, H, W), of the last block; None unless asked for.
        block_heatmaps: H of each block (N, L, H, W), None of a model with one.
        word_heatmaps: of each question H of each of its T tokens (T, H, W), the last one ``heatmap``; None of
            a model without a product for each word.
        zero_image_gradient: (N) whether Eq. 2 of the last block is zero everywhere.
        zero_word_gradient: (N) whether Eq. 3 is zero everywhere.
        scores: (N) the score of each image and text, of a model that scores them and has no answers: then
            ``answers`` say it in words, and ``probabilities`` are NaN unless it is one.
    """

    saliency: Tensor
    z: Tensor
    heatmap: Tensor
    gradient: Tensor | None
    zero_image_gradient: Tensor
    zero_word_gradient: Tensor
    block_heatmaps: Tensor | None = None
    scores: Tensor | None = None
    word_heatmaps: list[Tensor] | None = None


@dataclass
class _Round:
    """What the N questions of a round came to, on the model's device.

    Attributes:
        joint: of the questions.
        maps: of each block the heat maps (n, H, W) of the first n questions; n is N but for a network with a
            block for each word.
        heatmap: (N, H, W), of each question's last block, and so is what follows.
        gradient: ∇̂v (N, C, H, W), if asked for.
        is_zero: (N) whether Eq. 2 is zero everywhere.
    """

    joint: Joint
    maps: list[Tensor]
    heatmap: Tensor
    gradient: Tensor | None
    is_zero: Tensor

    def of_words(self, lengths: Tensor) -> list[Tensor]:
        """Of each question the heat maps of its own tokens (T, H, W), on the CPU."""
        shape = self.heatmap.shape[1:]
        return [
            torch.stack([map[row] for map in self.maps[:length]]).cpu() if length else torch.zeros(0, *shape)
            for row, length in enumerate(lengths.tolist())
        ]


class Explainer:
    """Explains a model's answers by Eqs 2 and 3, with guided backpropagation through the backbone.

    The backbone runs forward once per image and backward once per round of questions and block. A head
    without a Hadamard product has neither equation: its questions are answered.

    Args:
        model: the network, on the device to compute on.
        gradient: also return the standardized gradient.
        dtype: of the backbone's numbers; none: its own. The head's stay as they are.
        compiled: have PyTorch compile the backbone's passes.
        free: let F move with the image in Eq. 2, in place of holding it constant.

    Raises:
        HvxError: the backbone is not a ReLU network.
    """

    @standard_mode()
    def __init__(
        self,
        model: VQAModel,
        gradient: bool = False,
        dtype: torch.dtype | None = None,
        compiled: bool = False,
        free: bool = False,
    ) -> None:
        self.model, self.gradient, self._free = model, gradient, free
        leave_inference_mode(model.backbone)
        leave_inference_mode(model.head)
        self._tokenize = tokenizer(model.config.encoder)
        self._network = LeanNetwork(model.backbone.network, dtype, compiled)
        self.device = next(model.head.parameters()).device

    @standard_mode()
    def memory(self) -> int:
        """Bytes that the backbone's passes over one image take, about."""
        size = self.model.config.image.size
        return self._network.memory(torch.zeros(1, 3, size, size, device=self.device))

    @standard_mode()
    def explain(self, inputs: Tensor, images: list[int], questions: list[str]) -> Answered:
        """Explain questions on a batch of images.

        Args:
            inputs: normalized images (B, C, H, W).
            images: the image, 0 … B − 1, of each question (N).
            questions: (N).

        Returns:
            ``Explanations``, where the head joins by Hadamard products.

        Raises:
            OutOfMemory: the images are too many, or too large, for the device's memory.
        """
        try:
            return self._explain(inputs, images, questions)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            # On the CPU PyTorch has no error of its own for it.
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            lack = f"{len(inputs)} images of {inputs.shape[2]}×{inputs.shape[3]} pixels"
        # Raised out here: the error at hand holds on to all tensors of the attempt.
        raise OutOfMemory(
            f"{self.device}: not enough memory for {lack}; give a smaller batch or another device"
        )

    def _explain(self, inputs: Tensor, images: list[int], questions: list[str]) -> Answered:
        tokens = [self._tokenize(question) for question in questions]
        rows, lengths = (
            torch.from_numpy(array).to(self.device)
            for array in padded([self.model.vocabulary.rows(own) for own in tokens])
        )
        order = rounds(images)
        back = torch.tensor([place for places in order for place in places]).argsort()
        shown = [images[place] for place in order[0]]
        inputs = inputs if shown == list(range(len(inputs))) else inputs[shown]
        pullback = self._network(inputs.to(self.device, non_blocking=True))
        self._check(pullback.features)
        if not isinstance(self.model.head, HadamardHead):
            joints = _answered(self.model.head, pullback.features, rows, lengths, order)
            return Answered(**self._common(tokens, joints, back))
        head = HeadPullback(self.model.head, pullback.features, rows, lengths, self._free)
        done: list[_Round] = []
        words: list[Tensor] = []
        for places in order:
            joint, cotangents = head.visual(torch.tensor(places, device=self.device))
            done.append(self._round(pullback, joint, cotangents))
            if joint.steps is not None:  # as soon as may be to the CPU: they are many
                words += done[-1].of_words(lengths[places])
                done[-1].maps.clear()
        saliency = token_saliency(head.textual())
        blocks = None
        if not words and len(done[0].maps) > 1:
            blocks = _gathered([torch.stack(one.maps, 1) for one in done], back)
        return Explanations(
            **self._common(tokens, [one.joint for one in done], back),
            saliency=saliency,
            z=token_z(saliency, lengths),
            heatmap=_gathered([one.heatmap for one in done], back),
            gradient=_gathered_if_any([one.gradient for one in done], back),
            zero_image_gradient=_gathered([one.is_zero for one in done], back),
            zero_word_gradient=~saliency.any(1),
            block_heatmaps=blocks,
            word_heatmaps=[words[place] for place in back.tolist()] if words else None,
        )

    def _common(self, tokens: list[list[str]], joints: list[Joint], back: Tensor) -> dict[str, Any]:
        """What ``Answered`` holds, of the rounds' joints."""
        logits = _gathered([joint.logits for joint in joints], back)
        probabilities, best = logits.softmax(1).topk(min(TOP, len(self.model.answers)))
        return {
            "tokens": tokens,
            "unknown": [self.model.vocabulary.unknown(own) for own in tokens],
            "answers": [[self.model.answers[a] for a in row] for row in best.tolist()],
            "probabilities": probabilities,
            "attention": _gathered_if_any([joint.attention for joint in joints], back),
            "textual_attention": _gathered_if_any([joint.textual_attention for joint in joints], back),
            "earlier_attention": _gathered_if_any([joint.earlier_attention for joint in joints], back),
        }

    def _round(self, pullback: LeanPullback, joint: Joint, cotangents: Iterator[Tensor]) -> _Round:
        """Eqs 2 and 9 of a round's questions, block by block; what is kept of the last block is each one's
        own last."""
        maps: list[Tensor] = []
        kept: dict[str, Tensor] = {}
        for place, cotangent in enumerate(cotangents):
            raw = pullback.pull(cotangent)
            gradient = standardized(raw)
            maps.append(heat_map(gradient))
            found = {"heatmap": maps[-1], "is_zero": ~raw.flatten(1).any(1)}
            found |= {"gradient": gradient} if self.gradient else {}
            if joint.steps is None:
                kept = found
            elif not place:  # every question has the first block
                kept = {name: tensor.clone() for name, tensor in found.items()}
            else:
                ends = joint.steps[: len(raw)] == place + 1
                for name, tensor in found.items():
                    kept[name][: len(raw)][ends] = tensor[ends]
        return _Round(joint, maps, kept["heatmap"], kept.get("gradient"), kept["is_zero"])

    def _check(self, features: Tensor) -> None:
        wanted = self.model.head.channels
        if features.ndim != 4 or features.shape[1] != wanted:
            node, found = self.model.config.backbone.node, tuple(features.shape[1:])
            raise HvxError(
                f"model.backbone.node: '{node}' yields {found}; the head takes {wanted} channels on a lattice"
            )


@torch.no_grad()
def _answered(
    head: Head, features: Tensor, rows: Tensor, lengths: Tensor, order: list[list[int]]
) -> list[Joint]:
    """The joints of each round of questions, on the first of the images of these features."""
    terms, question = head.image_terms(features), head.read(head.encoder.embed(rows), lengths)
    found = []
    for places in order:
        own = torch.arange(len(places), device=features.device)
        found.append(head.join(features, terms, own, question[places], lengths[places]))
    return found


def rounds(images: list[int]) -> list[list[int]]:
    """Questions in rounds: the r-th round holds the r-th question of every image that has so many.

    Args:
        images: the image of each question.

    Returns:
        Places in ``images``; each occurs once. No round holds an image twice, and the images of a round are,
        in the same order, the first of those of the round before.
    """
    asked: dict[int, list[int]] = {}
    for place, image in enumerate(images):
        asked.setdefault(image, []).append(place)
    most_first = sorted(asked.values(), key=len, reverse=True)
    most = len(most_first[0]) if most_first else 0
    return [[own[rank] for own in most_first if rank < len(own)] for rank in range(most)]


def _gathered(parts: list[Tensor], back: Tensor) -> Tensor:
    """The rounds' tensors as one, in the questions' order."""
    return torch.cat(parts)[back.to(parts[0].device)]


def _gathered_if_any(parts: list[Tensor | None], back: Tensor) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return _gathered(present, back) if present else None
