"""What ``explain_product`` returns: both explanations of one joint, and how they show themselves."""

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

if TYPE_CHECKING:
    from PIL import Image

    from hvx.view.figure import FigureStyle

_SHOWN = 8
"""Questions that a notebook shows."""


@dataclass(frozen=True, repr=False)
class ProductExplanation:
    """Both explanations of one joint; all tensors detached. In a notebook it shows itself.

    Attributes:
        visual: V (N, d), of products that form one joint side by side; over a lattice as the model has it.
        textual: Q (N, d).
        product: F = Q ∘ V (N, d).
        image_gradient: Eq. 2, at the image as the model took it: (N, C, H, W), or features of any shape.
        word_gradient: Eq. 3, (N, T, E); (N, E) where the words are one vector a question.
        image_map: Eq. 2 as (N, C, H, W): as it is, or by ``reshape``; None of another shape.
        saliency: Eq. 10 (N, T); None where the words are one vector a question.
        z: Eq. 11 (N, T), NaN where there is no token; None as ``saliency``.
        attention: α (N, G, S, S) that V was pooled with; None if none was recognized.
        rule: "guided" or "gradient".
        relus: ReLUs of the image's side that were guided.
        unguided: nonlinearities of the image's side that kept their true gradient, with their number.
        chosen: the product explained, the last one of ``joined``; None of factors that were handed over.
        products: all that were found.
        joined: the products that were explained together: several if they form one joint.
        output: what the model returned, detached; None of factors that were handed over.
        image: the image that was given; None where it is what a module puts out.
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
        """∇̂v of Eq. 9 (N, C, H, W); None as ``image_map``."""
        return None if self.image_map is None else standardized(self.image_map)

    @cached_property
    def heatmap(self) -> Tensor | None:
        """H (N, H, W); None as ``image_map``."""
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
            photos: what each question's image shows, square. Without, the pixels that the model took,
                each image between its own least and largest value.
            tokens: of each question, as many as it has scores, first to last. Without, their numbers.
            answers: what is written beside each question.
            width: in pixels.
            style: how it shows the rows.

        Raises:
            HvxError: there is no heat map or no z-score, another number of rows or tokens, or no photos are
                given where the image is no pixels.
        """
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
        """The figure of the first questions where one can be drawn, else the same as ``repr``."""
        from hvx.capture.figure import can_be_drawn

        text = html.escape(repr(self))
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
        """The same of the first questions."""
        from dataclasses import replace

        cut = {
            name: value[:count]
            for name in ("image_map", "saliency", "z", "attention", "word_gradient")
            if (value := getattr(self, name)) is not None
        }
        if self.image is not None and len(self.image) > 1:
            cut["image"] = self.image[:count]
        return replace(self, **cut)
