"""Explains a split's questions with a user's module."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from hvx.adapters.adapter import Adapter, ModelInputs
from hvx.adapters.outputs import answers_of, values_of
from hvx.adapters.questions import ModelQuestion, given_of
from hvx.adapters.user_code import UserCode
from hvx.capture.equations import CotangentName
from hvx.capture.products import explain_product
from hvx.capture.result import ProductExplanation
from hvx.device import leave_inference_mode, standard_mode
from hvx.errors import HvxError
from hvx.explain.explainer import Explanations

_BATCH = 64
"""Largest number of questions on one image in one forward."""
_TOLERANCE = 1e-3
"""Largest relative difference, by norm, that rounding and the two engines for a CNN explain."""


@dataclass
class _Part:
    """Explanations of some questions, their indices among all questions, and the module's output."""

    indices: list[int]
    explained: Explanations
    values: Tensor


class AdapterExplainer:
    """A worker's explainer: see ``hvx.run.source.SplitExplainer``.

    ``check`` must be called first: it tests whether the module takes one image for several questions.

    Args:
        adapter: the user's.
        code: the source of the adapter.
        device: runs the module.
        cotangent: of Eqs 2 and 3.
        gradient: also return the standardized gradient.
    """

    @standard_mode()
    def __init__(
        self,
        adapter: Adapter,
        code: UserCode,
        device: torch.device,
        cotangent: CotangentName = "joint",
        gradient: bool = False,
    ) -> None:
        self.adapter, self.device, self._code = adapter, device, code
        self._cotangent, self._gradient = cotangent, gradient
        adapter.owner.to(device).eval()
        leave_inference_mode(adapter.owner)
        self.takes_one_image = False
        """Whether the module returns the same for one image as for the image repeated for each question."""
        self._attention: torch.Size | None = None
        self._bytes = 1

    def memory(self) -> int:
        """Approximate bytes that autograd saves for one image and a question."""
        return self._bytes

    @standard_mode()
    def check(self, inputs: Tensor, questions: list[str]) -> tuple[tuple[int, int], list[str]]:
        """Check that the module explains questions and keeps their order, and test how it takes images.

        Args:
            inputs: two or more images (B, C, H, W), as ``explain`` takes them.
            questions: preferably of different lengths.

        Returns:
            (H, W) of a heat map, and the warnings of explain_product.

        Raises:
            HvxError: the user's code raised an error, or returned something invalid.
            OutOfMemory: as ``explain``.
        """
        with self._code.told():
            images = self._prepare(inputs)
            repeated = images[[index % len(images) for index in range(len(questions))]]
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                in_order = self._on_images(repeated, questions, list(range(len(questions))))
            self._attention = _shape(in_order.explained.attention)
            in_reverse = self._on_images(repeated.flip(0), questions[::-1], list(range(len(questions))))
            _check_order(in_order, in_reverse)
            self._bytes = self._saved_bytes(images[:1], questions[:1])
            self.takes_one_image = len(questions) > 1 and self._same_for_one_image(images[:1], questions)
        messages = [str(warning.message) for warning in caught if "product= chooses" in str(warning.message)]
        height, width = in_order.explained.heatmap.shape[1:]
        return (height, width), messages

    @standard_mode()
    def explain(self, inputs: Tensor, images: list[int], questions: list[str]) -> Explanations:
        """Explain questions on normalized images (B, C, H, W); ``images``: the image of each question.

        Raises:
            OutOfMemory: the images are too many for the device's memory.
            HvxError: the user's code raised an error, or returned something invalid.
        """
        with self._code.told(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a run counts the gradients that are zero
            prepared = self._prepare(inputs)
            parts, separate = [], []
            for image, indices in _by_image(images).items():
                if not self.takes_one_image or len(indices) == 1:
                    separate += indices
                    continue
                for start in range(0, len(indices), _BATCH):
                    chunk = indices[start : start + _BATCH]
                    parts.append(self._on_one_image(prepared[image : image + 1], questions, chunk))
            batch_size = max(1, len(inputs))  # memory is estimated for this number of images
            for start in range(0, len(separate), batch_size):
                chunk = separate[start : start + batch_size]
                repeated = prepared[[images[index] for index in chunk]]
                parts.append(self._on_images(repeated, [questions[index] for index in chunk], chunk))
        return _merged(parts)

    def _prepare(self, inputs: Tensor) -> Tensor:
        """The images, preprocessed for the module, on the device."""
        if self.adapter.prepare is None:
            return inputs.to(self.device)
        return torch.stack([self._prepare_image(pixels) for pixels in inputs]).to(self.device)

    def _prepare_image(self, pixels: Tensor) -> Tensor:
        """A square of pixels, 0 to 1, preprocessed by the user's function."""
        prepared = self.adapter.prepare(_as_photo(pixels)) if self.adapter.prepare else pixels
        side = self.adapter.size
        if not isinstance(prepared, Tensor) or prepared.ndim != 3 or prepared.shape[1:] != (side, side):
            actual = tuple(prepared.shape) if isinstance(prepared, Tensor) else type(prepared).__name__
            raise HvxError(
                f"prepare= returned {actual}; expected a tensor (C, {side}, {side}): it is handed the square "
                "that the module sees, at size="
            )
        return prepared.detach()

    def _on_one_image(self, image: Tensor, questions: list[str], indices: list[int]) -> _Part:
        """Questions on one image. With one word each, (N, 1) cannot be distinguished from (1, N)."""
        selected = [questions[index] for index in indices]
        batch = self._inputs(image, selected)
        if batch.width == 1:
            return self._on_images(image.repeat(len(indices), 1, 1, 1), selected, indices)
        return self._explain_batch(image, batch, selected, indices)

    def _on_images(self, images: Tensor, questions: list[str], indices: list[int]) -> _Part:
        """Questions with one image each (N, C, H, W)."""
        batch = self._inputs(images, questions)
        if batch.is_ambiguous:  # (T, N) with T = N would be read as (N, T)
            half = len(questions) // 2
            cuts = slice(0, half), slice(half, None)
            parts = [self._on_images(images[cut], questions[cut], indices[cut]) for cut in cuts]
            values = torch.cat([part.values for part in parts])
            return _Part(indices, _merged(parts, sort=False), values)
        return self._explain_batch(images, batch, questions, indices)

    def _inputs(self, images: Tensor, questions: list[str]) -> ModelQuestion:
        inputs: Any = self.adapter.inputs(images, list(questions))
        if not isinstance(inputs, ModelInputs):
            raise HvxError(f"inputs= returned {type(inputs).__name__}; expected hvx.ModelInputs")
        return given_of(inputs, len(questions), self.adapter.batch_second)

    def _explain_batch(
        self, images: Tensor, batch: ModelQuestion, questions: list[str], indices: list[int]
    ) -> _Part:
        adapter, inputs = self.adapter, batch.inputs
        mask = None if batch.mask is None else batch.mask.to(self.device)
        image = images if inputs.image is None else inputs.image
        explanation = explain_product(
            cast("nn.Module", adapter.module), inputs.inputs, image=image, words=inputs.words,
            kwargs=inputs.kwargs, product=adapter.product, visual=adapter.visual, mask=mask,
            rule=adapter.rule, reshape=adapter.reshape, other_activations=adapter.other_activations,
            through_no_grad=adapter.through_no_grad, cotangent=self._cotangent,
        )  # fmt: skip
        values = values_of(adapter, explanation.output, len(questions))
        return _Part(indices, self._as_explanations(explanation, batch, questions, values), values)

    def _as_explanations(
        self, explanation: ProductExplanation, batch: ModelQuestion, questions: list[str], values: Tensor
    ) -> Explanations:
        if explanation.heatmap is None:
            shape = tuple(explanation.image_gradient.shape)
            raise HvxError(f"Eq. 2 is {shape}, no map (N, C, H, W); say by reshape= what makes it one")
        if explanation.saliency is None or explanation.z is None:
            raise HvxError("words: one vector for each question; the tokens cannot be distinguished")
        if self._gradient and (explanation.gradient is None or explanation.gradient.shape[1] != 3):
            raise HvxError("explain.gradient: Eq. 2 is not taken at three color channels here")
        saliency, z = batch.by_token(explanation.saliency.cpu(), explanation.z.cpu(), questions)
        answers, probabilities, scores = answers_of(self.adapter, values)
        gradient = explanation.gradient if self._gradient else None
        return Explanations(
            tokens=[list(words) for words in batch.inputs.tokens],
            saliency=saliency,
            z=z,
            attention=self._checked_attention(explanation, batch),
            heatmap=explanation.heatmap.float().cpu(),
            gradient=None if gradient is None else gradient.float().cpu(),
            answers=answers,
            probabilities=probabilities,
            zero_image_gradient=~explanation.image_gradient.flatten(1).any(1).cpu(),
            zero_word_gradient=~saliency.any(1),
            unknown=batch.unknown,
            scores=scores,
        )

    def _checked_attention(self, explanation: ProductExplanation, batch: ModelQuestion) -> Tensor | None:
        """The attention, if its shape is the one that ``check`` found."""
        attention = None if explanation.attention is None else explanation.attention.float().cpu()
        first = self._attention
        if first is None or _shape(attention) == first:
            return attention
        if first == torch.Size():
            return None
        raise HvxError(
            f"attention {tuple(first)} was recognized at first, and now {_shape(attention)}, among words of "
            f"{batch.width} positions; pad them to a length that is no number of the image's positions"
        )

    def _same_for_one_image(self, image: Tensor, questions: list[str]) -> bool:
        """Whether one image for several questions gives the same as the repeated image."""
        indices = list(range(len(questions)))
        if self.adapter.batch_second or not isinstance(self._inputs(image, questions).inputs.words, Tensor):
            return False  # the words do not show N
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            repeated = self._on_images(image.repeat(len(questions), 1, 1, 1), questions, indices)
            try:
                shared = self._on_one_image(image, questions, indices)
            except Exception:  # a module that does not take it may raise anything
                return False
        pairs = (
            (shared.values, repeated.values),
            (shared.explained.heatmap, repeated.explained.heatmap),
            (shared.explained.saliency, repeated.explained.saliency),
        )
        return all(_all_close(*pair) for pair in pairs)

    def _saved_bytes(self, image: Tensor, questions: list[str]) -> int:
        """Bytes that a forward saves for its gradients."""
        saved: dict[int, int] = {}

        def save(tensor: Tensor) -> Tensor:
            saved[tensor.data_ptr()] = tensor.nbytes
            return tensor

        model_inputs = self._inputs(image.clone().requires_grad_(), questions).inputs
        arguments = () if isinstance(model_inputs.inputs, dict) else model_inputs.inputs
        keywords = model_inputs.inputs if isinstance(model_inputs.inputs, dict) else model_inputs.kwargs or {}
        hooks = torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor)
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), hooks:
            self.adapter.module(*arguments, **keywords)
        weights = {weight.data_ptr() for weight in self.adapter.owner.parameters()}
        return max(1, sum(nbytes for pointer, nbytes in saved.items() if pointer not in weights))


def _as_photo(pixels: Tensor) -> Image.Image:
    """A square of pixels, 0 to 1, as a photograph with values from 0 to 255."""
    return Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).numpy().astype(np.uint8))


def _by_image(images: list[int]) -> dict[int, list[int]]:
    """Image → indices of its questions."""
    by_image: dict[int, list[int]] = {}
    for index, image in enumerate(images):
        by_image.setdefault(image, []).append(index)
    return by_image


def _shape(attention: Tensor | None) -> torch.Size:
    """(G, S, S), or () if there is none."""
    return torch.Size() if attention is None else attention.shape[1:]


def _check_order(in_order: _Part, in_reverse: _Part) -> None:
    """Refuse an adapter that changes the order of rows: reversed questions must give reversed rows."""
    if in_reverse.explained.tokens[::-1] != in_order.explained.tokens:
        raise HvxError("inputs=: changes the order of the questions: tokens of one stand in another's row")
    if not _all_close(in_reverse.values.flip(0), in_order.values):
        raise HvxError(
            "the module changes the order of its rows, or mixes them: the same questions in reverse order do "
            "not give the same output in reverse (questions sorted by length, and not sorted back?)"
        )


def _all_close(actual: Tensor, expected: Tensor) -> bool:
    """Whether two tensors are equal up to rounding, with NaN as 0 and infinities as large numbers."""
    actual, expected = actual.nan_to_num(), expected.nan_to_num()
    return actual.shape == expected.shape and bool((actual - expected).norm() <= _TOLERANCE * expected.norm())


def _merged(parts: list[_Part], sort: bool = True) -> Explanations:
    """Parts as one, in the order of their indices."""
    indices = torch.tensor([index for part in parts for index in part.indices])
    order = indices.argsort() if sort else torch.arange(len(indices))
    explained = [part.explained for part in parts]
    longest = max(item.saliency.shape[1] for item in explained)

    def joined(name: str, fill: float | None = None) -> Any:
        values = [getattr(item, name) for item in explained]
        if any(item is None for item in values):
            return None
        if fill is not None:
            values = [
                torch.nn.functional.pad(item, (0, longest - item.shape[1]), value=fill) for item in values
            ]
        return torch.cat(values)[order]

    def listed(name: str) -> list[Any]:
        values = [row for item in explained for row in getattr(item, name)]
        return [values[index] for index in order.tolist()]

    return Explanations(
        tokens=listed("tokens"),
        saliency=joined("saliency", 0.0),
        z=joined("z", torch.nan),
        attention=joined("attention"),
        heatmap=joined("heatmap"),
        gradient=joined("gradient"),
        answers=listed("answers"),
        probabilities=joined("probabilities"),
        zero_image_gradient=joined("zero_image_gradient"),
        zero_word_gradient=joined("zero_word_gradient"),
        unknown=listed("unknown"),
        scores=joined("scores"),
    )
