"""What ``explain_product`` returns: both explanations of one joint, and their display."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor

from hvx.capture.records import Product
from hvx.explain.scores import heat_map, standardized
from hvx.extras import lacking, require

if TYPE_CHECKING:
    from PIL import Image

    from hvx.view.style import FigureStyle

_SHOWN = 8
"""Questions that a notebook shows."""


@dataclass(frozen=True, repr=False)
class ProductExplanation:
    """Both explanations of one joint; all tensors are detached. A notebook displays it as a figure.

    Attributes:
        visual: V (N, d), concatenated over the products of a joint; over a grid in the model's shape.
        textual: Q (N, d).
        product: F = Q ∘ V (N, d).
        image_gradient: Eq. 2, at the image as passed to the model: (N, C, H, W), or features of any shape.
        word_gradient: Eq. 3, (N, T, E); (N, E) if the words are one vector for each question.
        image_map: Eq. 2 as (N, C, H, W), unchanged or by ``reshape``; None if it has another shape.
        saliency: Eq. 10 (N, T); None if the words are one vector for each question.
        z: Eq. 11 (N, T), NaN where there is no token; None if ``saliency`` is None.
        attention: α (N, G, S, S) that V was pooled with; None if none was recognized.
        rule: "guided" or "gradient".
        relus: number of guided ReLUs in the image branch.
        unguided: name → number of the image branch's nonlinearities that kept their true gradient.
        chosen: the explained product, the last of ``joined``; None if the factors were passed in.
        products: all products of the forward.
        joined: the products that were explained together: several if they form one joint.
        output: what the model returned, detached; None if the factors were passed in.
        image: the image among the inputs; None if it is the output of a module.
    """

    visual: Tensor
    textual: Tensor
    product: Tensor
    image_gradient: Tensor
    word_gradient: Tensor
    image_map: Tensor | None
    saliency: Tensor | None
    z: Tensor | None
    attention: Tensor | None
    rule: str
    relus: int
    unguided: dict[str, int]
    chosen: Product | None
    products: list[Product]
    joined: list[Product]
    output: Any
    image: Tensor | None

    @cached_property
    def gradient(self) -> Tensor | None:
        """∇̂v of Eq. 9 (N, C, H, W); None if ``image_map`` is None."""
        return None if self.image_map is None else standardized(self.image_map)

    @cached_property
    def heatmap(self) -> Tensor | None:
        """H (N, H, W); None if ``image_map`` is None."""
        return None if self.gradient is None else heat_map(self.gradient)

    def figure(
        self,
        photos: Sequence[Image.Image] | None = None,
        tokens: Sequence[Sequence[str]] | None = None,
        answers: Sequence[str] | None = None,
        width: int = 1200,
        style: FigureStyle | None = None,
    ) -> Image.Image:
        """The paper's figure: a row for each question, with the attention if it was recognized.

        Args:
            photos: the square photograph of each question. If None, the pixels that the model read,
                each image scaled from its smallest to its largest value.
            tokens: of each question, as many as it has scores, first to last. If None, their numbers.
            answers: the text next to each question.
            width: in pixels.
            style: of the figure.

        Raises:
            HvxError: there is no heat map or no z-score, the number of rows or tokens is wrong, or there are
                no photos and the image is not pixels; or the extra ``figures`` is not installed.
        """
        require("figures", "a figure")
        from hvx.capture.figure import product_figure  # drawing is not needed to explain

        return product_figure(self, photos, tokens, answers, width, style)

    def __repr__(self) -> str:
        joint = " + ".join(product.name for product in self.joined) or "given factors"
        parts = [f"{len(self.word_gradient)} questions", f"joint {joint} {tuple(self.product.shape)}"]
        rule = f"guided at {self.relus} ReLUs" if self.rule == "guided" else "plain gradient"
        parts.append(f"image gradient {tuple(self.image_gradient.shape)}, {rule}")
        parts += [
            f"{name} {tuple(value.shape)}"
            for name, value in (("heat map", self.heatmap), ("z", self.z), ("attention", self.attention))
            if value is not None
        ]
        return f"ProductExplanation({'; '.join(parts)})"

    def _repr_html_(self) -> str:
        """The figure of the first questions if one can be drawn, else the same as ``repr``."""
        text = html.escape(repr(self))
        if lacking("figures", "a figure"):
            return f"<pre>{text}</pre>"
        from hvx.capture.figure import can_be_drawn

        if not can_be_drawn(self):
            return f"<pre>{text}</pre>"
        buffer = io.BytesIO()
        self._first(_SHOWN).figure().save(buffer, format="PNG")
        picture = base64.b64encode(buffer.getvalue()).decode()
        return (
            f'<figure><img style="max-width: 100%" alt="Explanation of {len(self.word_gradient)} questions" '
            f'src="data:image/png;base64,{picture}"><figcaption>{text}</figcaption></figure>'
        )

    def _first(self, count: int) -> ProductExplanation:
        """The explanation of the first questions only."""
        from dataclasses import replace

        sliced = {
            name: value[:count]
            for name in ("image_map", "saliency", "z", "attention", "word_gradient")
            if (value := getattr(self, name)) is not None
        }
        if self.image is not None and len(self.image) > 1:
            sliced["image"] = self.image[:count]
        return replace(self, **sliced)
