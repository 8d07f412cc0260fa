"""Explains a split's questions by a user's module."""

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
from hvx.adapters.questions import Given, given_of
from hvx.adapters.user_code import UserCode
from hvx.capture.equations import CotangentName
from hvx.capture.products import explain_product
from hvx.capture.result import ProductExplanation
from hvx.device import leave_inference_mode, standard_mode
from hvx.errors import HvxError
from hvx.explain.explainer import Explanations

_TOGETHER = 64
"""Questions on one image in one forward."""
_WITHIN = 1e-3
"""What rounding, and the two engines for a CNN, may differ by: the norm of a difference, as a share."""


@dataclass
class _Part:
    """Explanations of some questions, with the module's output and what stood in its place among all."""

    places: list[int]
    explained: Explanations
    values: Tensor


class AdapterExplainer:
    """What a worker explains with: see ``hvx.run.source.SplitExplainer``.

    ``check`` must be called first: it finds out whether the module takes one image for several questions.

    Args:
        adapter: the user's.
        code: where it comes from.
        device: where the module runs.
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
        """Whether the module gives the same for one image as for the image repeated for each question."""
        self._attention: torch.Size | None = None
        self._bytes = 1

    def memory(self) -> int:
        """Bytes that autograd keeps of one image and a question, about."""
        return self._bytes

    @standard_mode()
    def check(self, inputs: Tensor, questions: list[str]) -> tuple[tuple[int, int], list[str]]:
        """See that the module explains questions, keeps their order, and which way it takes images.

        Args:
            inputs: two or more images (B, C, H, W), as ``explain`` takes them.
            questions: of different lengths, at best.

        Returns:
            (H, W) of a heat map, and what explain_product warned of.

        Raises:
            HvxError: the user's code raised, or what it gave is not what it must be.
            OutOfMemory: as ``explain``.
        """
        with self._code.told():
            images = self._prepared(inputs)
            shown = images[[place % len(images) for place in range(len(questions))]]
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                forth = self._together(shown, questions, list(range(len(questions))))
            self._attention = _shape(forth.explained.attention)
            back = self._together(shown.flip(0), questions[::-1], list(range(len(questions))))
            _check_order(forth, back)
            self._bytes = self._kept(images[:1], questions[:1])
            self.takes_one_image = len(questions) > 1 and self._same_for_one_image(images[:1], questions)
        said = [str(each.message) for each in heard if "product= chooses" in str(each.message)]
        height, width = forth.explained.heatmap.shape[1:]
        return (height, width), said

    @standard_mode()
    def explain(self, inputs: Tensor, images: list[int], questions: list[str]) -> Explanations:
        """Explain questions on normalized images (B, C, H, W); ``images``: the image of each question.

        Raises:
            OutOfMemory: the images are too many for the device's memory.
            HvxError: the user's code raised, or what it gave is not what it must be.
        """
        with self._code.told(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a run counts the gradients that are zero
            prepared = self._prepared(inputs)
            parts, alone = [], []
            for image, places in _by_image(images).items():
                if not self.takes_one_image or len(places) == 1:
                    alone += places
                    continue
                for start in range(0, len(places), _TOGETHER):
                    own = places[start : start + _TOGETHER]
                    parts.append(self._on_one(prepared[image : image + 1], questions, own))
            rows = max(1, len(inputs))  # as many as the batch has images: memory was counted by images
            for start in range(0, len(alone), rows):
                own = alone[start : start + rows]
                repeated = prepared[[images[place] for place in own]]
                parts.append(self._together(repeated, [questions[place] for place in own], own))
        return _merged(parts)

    def _prepared(self, inputs: Tensor) -> Tensor:
        """The images as the module takes them, on the device."""
        if self.adapter.prepare is None:
            return inputs.to(self.device)
        return torch.stack([self._one_prepared(each) for each in inputs]).to(self.device)

    def _one_prepared(self, pixels: Tensor) -> Tensor:
        """What the user's function makes of a square of pixels, 0 to 1."""
        made = self.adapter.prepare(_as_photo(pixels)) if self.adapter.prepare else pixels
        side = self.adapter.size
        if not isinstance(made, Tensor) or made.ndim != 3 or made.shape[1:] != (side, side):
            what = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise HvxError(
                f"prepare= returned {what}; expected a tensor (C, {side}, {side}): it is handed the square "
                "that the module sees, at size="
            )
        return made.detach()

    def _on_one(self, image: Tensor, questions: list[str], places: list[int]) -> _Part:
        """Questions on one image. Of one word each, (N, 1) could not be told from (1, N)."""
        asked = [questions[place] for place in places]
        given = self._given(image, asked)
        if given.width == 1:
            return self._together(image.repeat(len(places), 1, 1, 1), asked, places)
        return self._explained(image, given, asked, places)

    def _together(self, images: Tensor, questions: list[str], places: list[int]) -> _Part:
        """Questions with an image each (N, C, H, W)."""
        given = self._given(images, questions)
        if given.is_ambiguous:  # (T, N) with T = N would be read as (N, T)
            half = len(questions) // 2
            cuts = slice(0, half), slice(half, None)
            parts = [self._together(images[cut], questions[cut], places[cut]) for cut in cuts]
            values = torch.cat([part.values for part in parts])
            return _Part(places, _merged(parts, sort=False), values)
        return self._explained(images, given, questions, places)

    def _given(self, images: Tensor, questions: list[str]) -> Given:
        made: Any = self.adapter.inputs(images, list(questions))
        if not isinstance(made, ModelInputs):
            raise HvxError(f"inputs= returned {type(made).__name__}; expected hvx.ModelInputs")
        return given_of(made, len(questions), self.adapter.batch_second)

    def _explained(self, images: Tensor, given: Given, questions: list[str], places: list[int]) -> _Part:
        adapter, made = self.adapter, given.inputs
        mask = None if given.mask is None else given.mask.to(self.device)
        image = images if made.image is None else made.image
        found = explain_product(
            cast("nn.Module", adapter.module), made.inputs, image=image, words=made.words,
            kwargs=made.kwargs, product=adapter.product, visual=adapter.visual, mask=mask, rule=adapter.rule,
            reshape=adapter.reshape, other_activations=adapter.other_activations,
            through_no_grad=adapter.through_no_grad, cotangent=self._cotangent,
        )  # fmt: skip
        values = values_of(adapter, found.output, len(questions))
        return _Part(places, self._as_explanations(found, given, questions, values), values)

    def _as_explanations(
        self, found: ProductExplanation, given: Given, questions: list[str], values: Tensor
    ) -> Explanations:
        if found.heatmap is None:
            shape = tuple(found.image_gradient.shape)
            raise HvxError(f"Eq. 2 is {shape}, no map (N, C, H, W); say by reshape= what makes it one")
        if found.saliency is None or found.z is None:
            raise HvxError("words: one vector for each question; the tokens cannot be told apart")
        if self._gradient and (found.gradient is None or found.gradient.shape[1] != 3):
            raise HvxError("explain.gradient: Eq. 2 is not taken at three color channels here")
        saliency, z = given.by_token(found.saliency.cpu(), found.z.cpu(), questions)
        answers, probabilities, scores = answers_of(self.adapter, values)
        gradient = found.gradient if self._gradient else None
        return Explanations(
            tokens=[list(own) for own in given.inputs.tokens],
            saliency=saliency,
            z=z,
            attention=self._known_attention(found, given),
            heatmap=found.heatmap.float().cpu(),
            gradient=None if gradient is None else gradient.float().cpu(),
            answers=answers,
            probabilities=probabilities,
            zero_image_gradient=~found.image_gradient.flatten(1).any(1).cpu(),
            zero_word_gradient=~saliency.any(1),
            unknown=given.unknown,
            scores=scores,
        )

    def _known_attention(self, found: ProductExplanation, given: Given) -> Tensor | None:
        """The attention, as ``check`` met it."""
        attention = None if found.attention is None else found.attention.float().cpu()
        wanted = self._attention
        if wanted is None or _shape(attention) == wanted:
            return attention
        if wanted == torch.Size():
            return None
        raise HvxError(
            f"attention {tuple(wanted)} was recognized at first, and now {_shape(attention)}, among words of "
            f"{given.width} positions; pad them to a length that is no number of the image's positions"
        )

    def _same_for_one_image(self, image: Tensor, questions: list[str]) -> bool:
        """Whether one image for several questions gives what the image repeated gives."""
        every = list(range(len(questions)))
        if self.adapter.batch_second or not isinstance(self._given(image, questions).inputs.words, Tensor):
            return False  # N could not be told from the words
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            repeated = self._together(image.repeat(len(questions), 1, 1, 1), questions, every)
            try:
                one = self._on_one(image, questions, every)
            except Exception:  # a module that does not take it may raise anything
                return False
        pairs = (
            (one.values, repeated.values),
            (one.explained.heatmap, repeated.explained.heatmap),
            (one.explained.saliency, repeated.explained.saliency),
        )
        return all(_near(*pair) for pair in pairs)

    def _kept(self, image: Tensor, questions: list[str]) -> int:
        """Bytes that a forward keeps for its gradients."""
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.data_ptr()] = tensor.nbytes
            return tensor

        made = self._given(image.clone().requires_grad_(), questions).inputs
        arguments = () if isinstance(made.inputs, dict) else made.inputs
        keywords = made.inputs if isinstance(made.inputs, dict) else made.kwargs or {}
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), hooks:
            self.adapter.module(*arguments, **keywords)
        weights = {weight.data_ptr() for weight in self.adapter.owner.parameters()}
        return max(1, sum(count for place, count in kept.items() if place not in weights))


def _as_photo(pixels: Tensor) -> Image.Image:
    """A square of pixels, 0 to 1, as it was before they were divided by 255."""
    return Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).numpy().astype(np.uint8))


def _by_image(images: list[int]) -> dict[int, list[int]]:
    """Image → places of its questions."""
    found: dict[int, list[int]] = {}
    for place, image in enumerate(images):
        found.setdefault(image, []).append(place)
    return found


def _shape(attention: Tensor | None) -> torch.Size:
    """(G, S, S), or () where there is none."""
    return torch.Size() if attention is None else attention.shape[1:]


def _check_order(forth: _Part, back: _Part) -> None:
    """Refuse an adapter whose rows are not those of its questions: reversed, they must come reversed."""
    if back.explained.tokens[::-1] != forth.explained.tokens:
        raise HvxError("inputs=: changes the order of the questions: tokens of one stand in another's row")
    if not _near(back.values.flip(0), forth.values):
        raise HvxError(
            "the module changes the order of its rows, or mixes them: the same questions in reverse order do "
            "not give the same output in reverse (questions sorted by length, and not sorted back?)"
        )


def _near(one: Tensor, other: Tensor) -> bool:
    """Equal to rounding; NaN and infinities nowhere, or in the same places."""
    one, other = one.nan_to_num(), other.nan_to_num()
    return one.shape == other.shape and bool((one - other).norm() <= _WITHIN * other.norm())


def _merged(parts: list[_Part], sort: bool = True) -> Explanations:
    """Parts as one, in the order of their places."""
    places = torch.tensor([place for part in parts for place in part.places])
    order = places.argsort() if sort else torch.arange(len(places))
    explained = [part.explained for part in parts]
    longest = max(each.saliency.shape[1] for each in explained)

    def joined(name: str, fill: float | None = None) -> Any:
        found = [getattr(each, name) for each in explained]
        if any(each is None for each in found):
            return None
        if fill is not None:
            found = [
                torch.nn.functional.pad(each, (0, longest - each.shape[1]), value=fill) for each in found
            ]
        return torch.cat(found)[order]

    def listed(name: str) -> list[Any]:
        found = [row for each in explained for row in getattr(each, name)]
        return [found[place] for place in order.tolist()]

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
