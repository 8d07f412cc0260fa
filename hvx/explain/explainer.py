"""Explanations of questions on a batch of images: the two stages of the VJP, batched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from hvx.data.tokenize import padded, tokenizer
from hvx.device import leave_inference_mode, standard_mode, to_device
from hvx.errors import HvxError, OutOfMemory
from hvx.explain.fused import FusedGuidedBackbone, FusedGuidedVJP
from hvx.explain.hadamard import HeadVJP, encode_questions
from hvx.explain.scores import heat_map, standardized, token_saliency, token_z
from hvx.models.base import HadamardHead, Head, HeadOutput
from hvx.models.checkpoint import VQAModel

TOP = 5
"""Number of answers stored with their probabilities."""


@dataclass(kw_only=True)
class Answered:
    """A model's answers to N questions, and its attention; all tensors are on one device.

    Attributes:
        tokens: of each question.
        unknown: of each token, whether the vocabulary lacks it.
        answers: the five likeliest answers of each question, likeliest first.
        probabilities: of these answers (N, 5).
        attention: α (N, G, S, S); None if the model has no attention.
        textual_attention: (N, T); None if the model has none.
        earlier_attention: (N, 2, T), the attention to words and to phrases of a model with three levels of
            textual attention, the third being ``textual_attention``; None for other models.
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
    """Explanations of N questions by Eqs 2 and 3; tensors are on one device, heat maps of words on the CPU.

    Attributes:
        saliency: Eq. 10 (N, T), zero after each question's last token.
        z: Eq. 11 (N, T), NaN after each question's last token.
        heatmap: H (N, H, W), of the last block.
        gradient: ∇̂v of Eq. 9 (N, C, H, W), of the last block; None unless requested.
        block_heatmaps: H of each block (N, L, H, W); None if the model has one block.
        word_heatmaps: for each question, H of each of its T tokens (T, H, W), the last being ``heatmap``;
            None if the model has no product for each word.
        zero_image_gradient: (N) whether Eq. 2 of the last block is zero everywhere.
        zero_word_gradient: (N) whether Eq. 3 is zero everywhere.
        scores: (N) the score of each image and text, for a model that has scores instead of answers: then
            ``answers`` are the scores as text, and ``probabilities`` are NaN unless the score is one.
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
    """Results of a round of N questions, on the model's device.

    Attributes:
        joint: of the questions.
        maps: for each block, the heat maps (n, H, W) of the first n questions; n is N, except in a network
            with a block for each word.
        heatmap: (N, H, W), of each question's last block; the following attributes too.
        gradient: ∇̂v (N, C, H, W), if requested.
        is_zero: (N) whether Eq. 2 is zero everywhere.
    """

    joint: HeadOutput
    maps: list[Tensor]
    heatmap: Tensor
    gradient: Tensor | None
    is_zero: Tensor

    def of_words(self, lengths: Tensor) -> list[Tensor]:
        """For each question, the heat maps of its tokens (T, H, W), on the CPU."""
        shape = self.heatmap.shape[1:]
        return [
            torch.stack([block[row] for block in self.maps[:length]]).cpu()
            if length
            else torch.zeros(0, *shape)
            for row, length in enumerate(lengths.tolist())
        ]


class Explainer:
    """Explains a model's answers by Eqs 2 and 3, with guided backpropagation through the backbone.

    The backbone runs forward once per image and backward once per round of questions and block. The
    equations need a Hadamard product: with a head without one, the questions are only answered.

    Args:
        model: the network, on the device to compute on.
        gradient: also return the standardized gradient.
        dtype: of the backbone's computation; its own if None. The head's dtype is unchanged.
        compiled: let PyTorch compile the backbone's passes.
        free: let F vary with the image in Eq. 2, instead of holding it constant.

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
        self._network = FusedGuidedBackbone(model.backbone.network, dtype, compiled)
        self.device = next(model.head.parameters()).device

    @standard_mode()
    def memory(self) -> int:
        """Approximate bytes of the backbone's passes over one image."""
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
            ``Explanations``, if the head has Hadamard products.

        Raises:
            OutOfMemory: the images are too many, or too large, for the device's memory.
        """
        try:
            return self._explain(inputs, images, questions)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            # On the CPU, PyTorch has no specific error for it.
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            lack = f"{len(inputs)} images of {inputs.shape[2]}×{inputs.shape[3]} pixels"
        # Raised here, after the handler: the caught error references all tensors of the attempt.
        raise OutOfMemory(
            f"{self.device}: not enough memory for {lack}; give a smaller batch or another device"
        )

    def _explain(self, inputs: Tensor, images: list[int], questions: list[str]) -> Answered:
        tokens = [self._tokenize(question) for question in questions]
        # All indices are copied to the GPU before its work is queued: a later copy would wait for that.
        rows, lengths = (
            to_device(torch.from_numpy(array), self.device)
            for array in padded([self.model.vocabulary.rows(question_tokens) for question_tokens in tokens])
        )
        order = question_rounds(images)
        positions = torch.tensor([index for indices in order for index in indices], dtype=torch.long)
        selected = to_device(positions, self.device).split([len(indices) for indices in order])
        inverse = positions.argsort()
        back = to_device(inverse, self.device)
        first_images = [images[index] for index in order[0]]
        if first_images != list(range(len(inputs))):
            inputs = inputs[to_device(torch.tensor(first_images), inputs.device)]
        head = self.model.head
        # Before the backbone: the encoder reads the lengths, for which the host waits.
        encoded = encode_questions(head, rows, lengths)
        pullback = self._network(inputs.to(self.device, non_blocking=True))
        self._check(pullback.features)
        if not isinstance(head, HadamardHead):
            joints = _joints(head, pullback.features, encoded[1], lengths, selected)
            return Answered(**self._common(tokens, joints, back))
        head_pullback = HeadVJP(head, pullback.features, rows, lengths, self._free, encoded)
        results: list[_Round] = []
        words: list[Tensor] = []
        for indices in selected:
            joint, cotangents = head_pullback.visual(indices)
            results.append(self._round(pullback, joint, cotangents))
            if joint.steps is not None:  # to the CPU as early as possible: they are many
                words += results[-1].of_words(lengths[indices])
                results[-1].maps.clear()
        saliency = token_saliency(head_pullback.textual())
        blocks = None
        if not words and len(results[0].maps) > 1:
            blocks = _gathered([torch.stack(result.maps, 1) for result in results], back)
        return Explanations(
            **self._common(tokens, [result.joint for result in results], back),
            saliency=saliency,
            z=token_z(saliency, lengths),
            heatmap=_gathered([result.heatmap for result in results], back),
            gradient=_gathered_if_any([result.gradient for result in results], back),
            zero_image_gradient=_gathered([result.is_zero for result in results], back),
            zero_word_gradient=~saliency.any(1),
            block_heatmaps=blocks,
            word_heatmaps=[words[index] for index in inverse.tolist()] if words else None,
        )

    def _common(self, tokens: list[list[str]], joints: list[HeadOutput], back: Tensor) -> dict[str, Any]:
        """The fields of ``Answered``, from the rounds' joints."""
        logits = _gathered([joint.logits for joint in joints], back)
        probabilities, best = logits.softmax(1).topk(min(TOP, len(self.model.answers)))
        return {
            "tokens": tokens,
            "unknown": [self.model.vocabulary.unknown(question_tokens) for question_tokens in tokens],
            "answers": [[self.model.answers[answer] for answer in row] for row in best.tolist()],
            "probabilities": probabilities,
            "attention": _gathered_if_any([joint.attention for joint in joints], back),
            "textual_attention": _gathered_if_any([joint.textual_attention for joint in joints], back),
            "earlier_attention": _gathered_if_any([joint.earlier_attention for joint in joints], back),
        }

    def _round(self, pullback: FusedGuidedVJP, joint: HeadOutput, cotangents: Iterator[Tensor]) -> _Round:
        """Eqs 2 and 9 of a round's questions, block by block; the last block may differ between questions."""
        maps: list[Tensor] = []
        final: dict[str, Tensor] = {}
        for block, cotangent in enumerate(cotangents):
            raw = pullback.vjp(cotangent)
            gradient = standardized(raw)
            maps.append(heat_map(gradient))
            # Much faster than any(), and as it does, NaN counts as other than zero.
            is_zero = (raw.amax((1, 2, 3)) == 0) & (raw.amin((1, 2, 3)) == 0)
            values = {"heatmap": maps[-1], "is_zero": is_zero}
            values |= {"gradient": gradient} if self.gradient else {}
            if joint.steps is None:
                final = values
            elif not block:  # every question has the first block
                final = {name: tensor.clone() for name, tensor in values.items()}
            else:
                is_last = joint.steps[: len(raw)] == block + 1
                for name, tensor in values.items():
                    final[name][: len(raw)][is_last] = tensor[is_last]
        return _Round(joint, maps, final["heatmap"], final.get("gradient"), final["is_zero"])

    def _check(self, features: Tensor) -> None:
        wanted = self.model.head.channels
        if features.ndim != 4 or features.shape[1] != wanted:
            node, shape = self.model.config.backbone.node, tuple(features.shape[1:])
            raise HvxError(
                f"model.backbone.node: '{node}' yields {shape}; the head takes {wanted} channels on a grid"
            )


@torch.no_grad()
def _joints(
    head: Head, features: Tensor, question: Tensor, lengths: Tensor, selected: Sequence[Tensor]
) -> list[HeadOutput]:
    """The joints of each round of encoded questions; a round of n questions is on the first n images."""
    terms = head.image_terms(features)
    joints = []
    for indices in selected:
        image_rows = torch.arange(len(indices), device=features.device)
        joints.append(head.join(features, terms, image_rows, question[indices], lengths[indices]))
    return joints


def question_rounds(images: list[int]) -> list[list[int]]:
    """Questions in rounds: the r-th round holds the r-th question of every image with at least r questions.

    Args:
        images: the image of each question.

    Returns:
        Indices in ``images``, each once. No round contains an image twice, and the images of a round are, in
        the same order, the first images of the round before.
    """
    by_image: dict[int, list[int]] = {}
    for index, image in enumerate(images):
        by_image.setdefault(image, []).append(index)
    longest_first = sorted(by_image.values(), key=len, reverse=True)
    count = len(longest_first[0]) if longest_first else 0
    return [[indices[rank] for indices in longest_first if rank < len(indices)] for rank in range(count)]


def _gathered(parts: list[Tensor], back: Tensor) -> Tensor:
    """The rounds' tensors concatenated, in the order of the questions."""
    return torch.cat(parts)[back]


def _gathered_if_any(parts: list[Tensor | None], back: Tensor) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return _gathered(present, back) if present else None
