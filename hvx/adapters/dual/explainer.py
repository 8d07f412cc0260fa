"""Explains the captions, or the labels, of a split's images with a dual encoder."""

from __future__ import annotations

import torch
from torch import Tensor

from hvx.adapters.dual.encoder import DualEncoder, image_branch
from hvx.adapters.dual.equations import Cotangent, Pairs, explain_pairs
from hvx.adapters.dual.labels import Labels
from hvx.device import standard_mode
from hvx.errors import OutOfMemory
from hvx.explain.explainer import TOP, Explanations


class DualExplainer:
    """A worker's explainer: see ``hvx.run.source.SplitExplainer``.

    Args:
        encoder: the dual encoder.
        labels: the candidate labels of each image; if None, the questions are captions.
        cotangent: of Eqs 2 and 3.
        free: in Eq. 2, F varies with the image.
        gradient: also return the standardized gradient.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        labels: Labels | None = None,
        cotangent: Cotangent = "joint",
        free: bool = False,
        gradient: bool = False,
    ) -> None:
        self.encoder, self.device = encoder, encoder.device
        self._labels, self._cotangent, self._free, self._gradient = labels, cotangent, free, gradient

    @standard_mode()
    def memory(self) -> int:
        """Approximate bytes that autograd saves for one image."""
        saved: dict[int, int] = {}

        def save(tensor: Tensor) -> Tensor:
            saved[tensor.data_ptr()] = tensor.nbytes
            return tensor

        size = self.encoder.image.size
        with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
            image_branch(self.encoder, torch.zeros(1, 3, size, size, device=self.device))
        weights = {weight.data_ptr() for weight in self.encoder.network.parameters()}
        return sum(nbytes for pointer, nbytes in saved.items() if pointer not in weights)

    @standard_mode()
    def explain(self, inputs: Tensor, images: list[int], questions: list[str]) -> Explanations:
        """Explain captions, or with labels the likeliest label's text, on normalized images (B, C, H, W).

        Raises:
            OutOfMemory: the images are too many for the device's memory.
        """
        try:
            return self._explain(inputs.to(self.device), images, questions)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            # On the CPU, PyTorch has no specific error for it.
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
        # Raised here, after the handler: the caught error references all tensors of the attempt.
        raise OutOfMemory(f"{self.device}: not enough memory for {len(inputs)} images; give a smaller batch")

    def _explain(self, inputs: Tensor, images: list[int], questions: list[str]) -> Explanations:
        branch = image_branch(self.encoder, inputs)
        count, scores, texts = len(images), None, questions
        if self._labels is not None:
            by_label = self._labels.probabilities(self.encoder, branch.vectors.detach()).cpu()[images]
            probabilities, best = by_label.topk(min(TOP, by_label.shape[1]))
            answers = [[self._labels.names[index] for index in row] for row in best.tolist()]
            texts = [self._labels.texts[row[0]] for row in best.tolist()]
        pairs = explain_pairs(
            self.encoder, branch, images, texts, self._cotangent, free=self._free, gradient=self._gradient
        )
        if self._labels is None:
            scores = self._scores(pairs.cosine)
            name = "probability" if self.encoder.sigmoid else "cosine"
            answers = [[f"{name} {score:.3f}"] for score in scores.tolist()]
            probabilities = scores[:, None] if self.encoder.sigmoid else torch.full((count, 1), torch.nan)
        return _explanations(pairs, answers, probabilities, scores)

    def _scores(self, cosine: Tensor) -> Tensor:
        """A caption's score by the encoder: a probability, or the cosine similarity."""
        if not self.encoder.sigmoid:
            return cosine
        return (self.encoder.scale * cosine + self.encoder.bias).sigmoid()


def _explanations(
    pairs: Pairs, answers: list[list[str]], probabilities: Tensor, scores: Tensor | None
) -> Explanations:
    return Explanations(
        tokens=[[word.text for word in words] for words in pairs.words],
        saliency=pairs.saliency,
        z=pairs.z,
        attention=None,
        heatmap=pairs.heatmap,
        gradient=pairs.gradient,
        answers=answers,
        probabilities=probabilities,
        zero_image_gradient=pairs.zero_image_gradient,
        zero_word_gradient=~pairs.saliency.any(1),
        unknown=[[word.unknown for word in words] for words in pairs.words],
        scores=scores,
    )
