"""A user's description of their own module, for ``hvx explain --model FILE.py:FUNCTION``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image
from torch import Tensor, nn

from hvx.capture.equations import Reshape, RuleName
from hvx.config import IMAGENET_MEAN, IMAGENET_STD

Meaning = Literal["logits", "sigmoid", "probabilities", "score"]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class ModelInputs:
    """A module's inputs for N questions; which of them are the image and the words.

    Attributes:
        inputs: of the forward: a sequence of arguments, or a mapping of keywords.
        words: the token ids (N, T), or embeddings (N, T, E), the very tensor among ``inputs``; or the path of
            the module that returns the embeddings.
        tokens: of each question, in the order of its positions in ``words``.
        mask: (N, T), true where there is a token; if None, where an id is not 0, for embeddings everywhere.
        image: the tensor among ``inputs`` that is the image; if None, the one that was passed in. Or the path
            of the module whose output Eq. 2 is taken at.
        kwargs: keywords of the forward, next to a sequence of ``inputs``.
        unknown: of each token, whether the module does not know it; if None, all are known.
    """

    inputs: Sequence[Any] | Mapping[str, Any]
    words: Tensor | str
    tokens: Sequence[Sequence[str]]
    mask: Tensor | None = None
    image: Tensor | str | None = None
    kwargs: Mapping[str, Any] | None = None
    unknown: Sequence[Sequence[bool]] | None = None


@dataclass(frozen=True)
class Adapter:
    """A module that ``hvx explain --model`` explains a split with.

    Attributes:
        module: a module with its weights, or a method of one. hvx moves it to the device.
        inputs: makes ``ModelInputs`` of normalized images (N, C, H, W) and N questions; or of one image
            (1, C, H, W), the image of all N questions, if the module's forward takes that.
        answers: the name of each column of the output; None with ``output="score"``.
        output: the meaning of the module's output: "logits" (N, A), whose softmax gives probabilities;
            "sigmoid" (N, A), logits of independent answers; "probabilities" (N, A); or a "score" (N) of image
            and text.
        read: takes this tensor from what the module returns; None if the module returns only this tensor.
        size: side in pixels of the center square that the module sees.
        interpolation: "bilinear" or "bicubic".
        mean: subtracted from the pixels, 0 to 1, by channel.
        std: divides the pixels, by channel.
        prepare: turns this square, a PIL image, into (C, size, size), instead of ``mean`` and ``std``.
        product: as in ``explain_product``, and so are the next five.
        visual: which factor is V.
        rule: "guided" or "gradient".
        other_activations: let activations other than ReLU keep their true gradients.
        through_no_grad: ignore the forward's attempts to switch gradients off.
        reshape: makes a map of a gradient at tokens.
        batch_second: ``words`` are (T, N), or (T, N, E).
    """

    module: nn.Module | Callable[..., Any]
    inputs: Callable[[Tensor, list[str]], ModelInputs]
    answers: Sequence[str] | None = None
    output: Meaning = "logits"
    read: Callable[[Any], Tensor] | None = None
    size: int = 224
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    prepare: Callable[[Image.Image], Tensor] | None = None
    product: int | str | Sequence[str] | None = None
    visual: str | None = None
    rule: RuleName | None = None
    other_activations: bool = False
    through_no_grad: bool = False
    reshape: Reshape | None = None
    batch_second: bool = False

    @property
    def owner(self) -> nn.Module:
        """The module with the weights."""
        owner = self.module if isinstance(self.module, nn.Module) else getattr(self.module, "__self__", None)
        assert isinstance(owner, nn.Module)  # ``fault`` was checked
        return owner

    def fault(self) -> str | None:
        """What is wrong with the values; None if nothing is."""
        owner = self.module if isinstance(self.module, nn.Module) else getattr(self.module, "__self__", None)
        if not isinstance(owner, nn.Module):
            return f"module: expected a torch.nn.Module or a method of one, not {type(self.module).__name__}"
        for name in ("inputs", "read", "prepare"):
            function = getattr(self, name)
            if not callable(function) and (function is not None or name == "inputs"):
                return f"{name}: expected a function, not {type(function).__name__}"
        if self.output not in ("logits", "sigmoid", "probabilities", "score"):
            known = "'logits', 'sigmoid', 'probabilities' or 'score'"
            return f"output: expected {known}, not {self.output!r:.40}"
        return self._fault_of_answers()

    def _fault_of_answers(self) -> str | None:
        if self.output == "score":
            return None if self.answers is None else "answers: a score has none; leave them out"
        if isinstance(self.answers, str) or not isinstance(self.answers, Sequence) or not self.answers:
            return f"answers: expected a list of texts, one for each column of the {self.output}"
        odd = next((answer for answer in self.answers if not isinstance(answer, str)), None)
        return None if odd is None else f"answers: expected texts, not {odd!r:.40}"
