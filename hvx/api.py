"""The Python API: explains a model's answer to a question about a photo, as tensors and as a picture."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from hvx.config import ImageConfig
from hvx.data.images import crop_photo, to_input
from hvx.data.photos import Photo, as_photo
from hvx.device import pick_device, standard_mode
from hvx.errors import HvxError, cut
from hvx.explain.explainer import Answered, Explanations
from hvx.explain.explainer import Explainer as BatchExplainer
from hvx.extras import lacking, require
from hvx.models.checkpoint import VQAModel, load_checkpoint
from hvx.store.schema import ZERO_IMAGE_GRADIENT, ZERO_WORD_GRADIENT
from hvx.view.crop import is_cropped, middle
from hvx.view.style import DPI, FigureStyle

if TYPE_CHECKING:
    from hvx.view.figure import FigureLayout, FigureRow

_TOGETHER = 64
"""Questions explained in one batch, which limits the memory for intermediate results."""
WITH_ANSWERS = FigureStyle(top_answers=True)


def load_model(checkpoint: str | Path, device: str = "auto") -> VQAModel:
    """Read a native checkpoint: what ``hvx train`` and ``hvx import`` write.

    Args:
        checkpoint: path of the file.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:0``, ….

    Raises:
        HvxError: no such file, not a native checkpoint, or no such device.
    """
    return load_checkpoint(Path(checkpoint), pick_device(device))


@dataclass(frozen=True, repr=False, eq=False)
class Explanation:
    """Why a model gave its answer to a question about a photo. Tensors are on the CPU.

    A notebook displays it as a figure.

    Attributes:
        question: as asked.
        tokens: T of them.
        answers: the five likeliest with their probabilities, in descending order.
        z: Eq. 11 (T); like the next three, None for a network without a Hadamard product.
        saliency: Eq. 10 (T).
        heatmap: H (H, W).
        gradient: ∇̂v of Eq. 9 (C, H, W).
        attention: α (G, S, S), each glimpse summing to 1; None for a model without attention.
        block_heatmaps: H of each block (L, H, W), the last one ``heatmap``; None if there is one product.
        textual_attention: (T), summing to 1; None for a model without one.
        earlier_attention: (2, T), the attention to words and to phrases of a model with three levels, where
            ``textual_attention`` is the third; None for others.
        word_heatmaps: H of each token (T, H, W), the last one ``heatmap``; None for a model without a product
            for each word.
        photo: the whole photo; the model saw the crop that ``figure`` shows.
        image: how the model crops and scales a photo.
        unknown: for each token, whether it is out of vocabulary; the model maps all such words to one.
        zero_gradient: bits of ``hvx.store.schema``: which of Eqs 2 and 3 is zero everywhere, so that the heat
            map or the z-scores are meaningless.
    """

    question: str
    tokens: list[str]
    answers: list[tuple[str, float]]
    z: Tensor | None
    saliency: Tensor | None
    heatmap: Tensor | None
    gradient: Tensor | None
    attention: Tensor | None
    block_heatmaps: Tensor | None
    textual_attention: Tensor | None
    photo: Image.Image
    image: ImageConfig
    unknown: list[bool]
    zero_gradient: int
    word_heatmaps: Tensor | None = None
    earlier_attention: Tensor | None = None
    _model: VQAModel | None = None

    @property
    def answer(self) -> str:
        """The likeliest answer."""
        return self.answers[0][0]

    def figure(
        self,
        width: int = 1200,
        style: FigureStyle | str | None = None,
        outline: bool | None = None,
        methods: Sequence[str] = (),
    ) -> Image.Image:
        """One row of the paper's figures: photo, attention maps, heat map, tokens colored by z, answers.

        Args:
            width: in pixels.
            style: a name as of ``hvx figure --style``, or a ``FigureStyle``; the default if None.
            outline: outline regions above the heat map's mean + 2 standard deviations; as the style if None.
            methods: names of methods of ``hvx measure`` as columns that replace the attention and the heat
                map; the model that gave the answer computes their maps.

        Raises:
            HvxError: an unknown style or method, a method without a map for this network, a width in which
                the pictures would be too small, or the extra ``figures`` is not installed.
        """
        require("figures", "a figure")
        from hvx.view.figure import draw_figure

        style = FigureStyle.of(style, outline)
        row = self.row(self.layout(width, style).side)
        if not methods:
            return draw_figure([row], width, style=style, levels=self.earlier_attention is not None)
        from hvx.measure.methods.maps import method_columns, photo_maps

        attention = None if self.attention is None else self.attention.numpy()
        if self.heatmap is None:
            raise HvxError("methods: no heat maps: the network has no Hadamard product")
        if self._model is None:
            raise HvxError("methods: this explanation was not made by an Explainer, and has no model")
        maps = photo_maps(
            self._model, methods, self.photo, self.tokens, self.answer, self.heatmap.numpy(), attention
        )
        return draw_figure([replace(row, maps=maps)], width, style=style, columns=method_columns(methods))

    def layout(self, width: int, style: FigureStyle, dpi: int = DPI) -> FigureLayout:
        """The layout of a figure with this row.

        Args:
            width: in pixels.
            style: how it shows the row.
            dpi: pixels in an inch.
        """
        from hvx.view.figure import FigureLayout

        glimpses = 0 if self.attention is None else len(self.attention)
        blocks = int(self.heatmap is not None) if self.block_heatmaps is None else len(self.block_heatmaps)
        levels = self.earlier_attention is not None
        return FigureLayout(width, glimpses, style, blocks=blocks, dpi=dpi, levels=levels)

    def row(self, side: int) -> FigureRow:
        """The row of a figure whose pictures are ``side`` pixels wide."""
        from hvx.view.figure import FigureRow

        size = max(self.image.size, side)
        return FigureRow(
            crop_photo(self.photo, self.image.model_copy(update={"size": size})),
            (torch.zeros(0, 1, 1) if self.attention is None else self.attention).numpy(),
            (torch.zeros(0, 0) if self.heatmap is None else self.heatmap).numpy(),
            self.tokens,
            [] if self.z is None else self.z.tolist(),
            self.answer,
            "",
            top_answers=tuple(self.answers),
            block_heatmaps=None if self.block_heatmaps is None else self.block_heatmaps.numpy(),
            zero_gradient=self.zero_gradient,
            unknown=self.unknown,
            word_heatmaps=None if self.word_heatmaps is None else self.word_heatmaps.numpy(),
            whole=middle(self.photo, size) if is_cropped(self.photo) else None,
            textual_attention=[] if self.textual_attention is None else self.textual_attention.tolist(),
        )

    def __repr__(self) -> str:
        answer, probability = self.answers[0]
        size = "no heat map" if self.heatmap is None else "H " + "×".join(map(str, self.heatmap.shape))
        return f"Explanation({cut(self.question)!r} → {answer!r:.60} {probability:.3f}, {size})"

    def _repr_png_(self) -> bytes | None:
        return None if lacking("figures", "a figure") else _png(self.figure())

    def _repr_html_(self) -> str:
        if lacking("figures", "a figure"):
            return f"<pre>{html.escape(repr(self))}</pre>"
        likeliest = ", ".join(f"{html.escape(answer)} {p:.3f}" for answer, p in self.answers)
        question = html.escape(self.question, quote=True)
        picture = base64.b64encode(_png(self.figure())).decode()
        return (
            f'<figure><img style="max-width: 100%" alt="Explanation of: {question}" '
            f'src="data:image/png;base64,{picture}"><figcaption>{question} {likeliest}</figcaption></figure>'
        )


class Explainer:
    """Explains a model's answers: ``Explainer(model).explain(photo, question)``.

    Args:
        model: from ``load_model``.

    Raises:
        HvxError: the backbone is not a ReLU network.
    """

    def __init__(self, model: VQAModel) -> None:
        self.model = model
        self._batched = BatchExplainer(model, gradient=True)

    def explain(self, photo: Photo, question: str) -> Explanation:
        """Answer a question about a photo and explain the answer.

        Args:
            photo: a file's path or bytes, a PIL image, an array or a tensor (see
                ``hvx.data.photos.as_photo``); its EXIF orientation is applied.
            question: any text with at least one word.

        Raises:
            HvxError: the question holds no word.
            BadImage: the photo cannot be read.
        """
        return self.explain_all(photo, [question])[0]

    def explain_all(self, photo: Photo, questions: Sequence[str]) -> list[Explanation]:
        """Answer several questions about a photo, which the backbone processes once.

        Arguments and exceptions are as of ``explain``.
        """
        if isinstance(questions, str):
            raise HvxError(f"questions: {questions!r:.60} is one; pass a list, or call explain")
        if not questions:
            return []
        image = as_photo(photo)
        config = self.model.config.image
        with standard_mode():
            inputs = to_input(crop_photo(image, config), config)[None]
        explanations = []
        for start in range(0, len(questions), _TOGETHER):
            batch = list(questions[start : start + _TOGETHER])
            explained = self._batched.explain(inputs, [0] * len(batch), batch).cpu()
            for question, tokens in zip(batch, explained.tokens, strict=True):
                if not tokens:
                    raise HvxError(f"question {question!r:.60}: holds no word; ask something")
            explanations += [
                self._explanation(explained, n, question, image) for n, question in enumerate(batch)
            ]
        return explanations

    def _explanation(self, explained: Answered, n: int, question: str, photo: Image.Image) -> Explanation:
        tokens = explained.tokens[n]
        attention, earlier = explained.textual_attention, explained.earlier_attention
        attributes: dict[str, Any] = dict.fromkeys(("z", "saliency", "heatmap", "gradient", "block_heatmaps"))
        attributes["zero_gradient"] = 0
        if isinstance(explained, Explanations):
            attributes = _attributes(explained, n)
        return Explanation(
            question=question,
            tokens=tokens,
            answers=list(zip(explained.answers[n], explained.probabilities[n].tolist(), strict=True)),
            attention=None if explained.attention is None else explained.attention[n],
            textual_attention=None if attention is None else attention[n, : len(tokens)],
            earlier_attention=None if earlier is None else earlier[n, :, : len(tokens)],
            photo=photo,
            image=self.model.config.image,
            unknown=explained.unknown[n],
            _model=self.model,
            **attributes,
        )

    def __repr__(self) -> str:
        return f"Explainer({self.model!r})"


def _attributes(explained: Explanations, n: int) -> dict[str, Any]:
    """The results of Eqs 2 and 3 for question n, by attribute of ``Explanation``."""
    length = len(explained.tokens[n])
    assert explained.gradient is not None
    return {
        "z": explained.z[n, :length],
        "saliency": explained.saliency[n, :length],
        "heatmap": explained.heatmap[n],
        "gradient": explained.gradient[n],
        "block_heatmaps": None if explained.block_heatmaps is None else explained.block_heatmaps[n],
        "word_heatmaps": None if explained.word_heatmaps is None else explained.word_heatmaps[n],
        "zero_gradient": ZERO_IMAGE_GRADIENT * bool(explained.zero_image_gradient[n])
        | ZERO_WORD_GRADIENT * bool(explained.zero_word_gradient[n]),
    }


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
