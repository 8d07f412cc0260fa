"""The error message if no product of image and words was found: what was seen, and what to pass."""

from __future__ import annotations

from typing import Any

from torch import nn

from hvx.capture.graph import IMAGE, WORDS
from hvx.capture.joining import tensors_in
from hvx.capture.recorder import ProductRecorder
from hvx.capture.words import EmbeddingLookup, EmbeddingModule, Words


def explain_missing_product(
    model: nn.Module, recorder: ProductRecorder, words: Words, through_no_grad: bool, output: Any
) -> str:
    """The message for a model without a product that Eqs 2 and 3 could start from."""
    name = type(model).__name__
    if isinstance(words, EmbeddingModule) and not words.called:
        return (
            f"words: the forward of {name} does not call {words.name}; name the module that makes embeddings"
        )
    if isinstance(words, EmbeddingLookup) and not recorder.lookups:
        return (
            f"words: {name} looks these ids up in no embedding table (nn.Embedding, F.embedding) that can "
            "be followed token by token; pass as words the module that puts out the embeddings (N, T, E), or "
            "its path, or the embeddings themselves where the inputs hold them"
        )
    if recorder.cut:
        return _cut(recorder, through_no_grad)
    if recorder.matrix is not None:
        return (
            f"{name} multiplies image and words as matrices in {recorder.matrix}, every row with every "
            "other, and takes no product element by element; for a dual encoder pass its two embeddings, a "
            "row each, to hvx.explain_joint"
        )
    if _two_embeddings(recorder, output):
        return (
            f"{name} takes no product of image and words, and returns an embedding of each; for a dual "
            "encoder pass its two embeddings, a row each, to hvx.explain_joint"
        )
    fused = f" ({recorder.both} of factors that both depend on image and words)" if recorder.both else ""
    return (
        f"no element-wise product of image and words in the forward of {name}: {recorder.multiplied} "
        f"products seen{fused}; the method explains models that join the two by a Hadamard product"
    )


def _cut(recorder: ProductRecorder, through_no_grad: bool) -> str:
    cut = recorder.cut[-1]
    text = (
        f"the product in {cut.module or 'the model'!r} ({cut.line}) joins image and words, but no gradient "
    )
    text += f"leads from it to the {cut.lost.replace(' and ', ' or the ')}: "
    if cut.inference is not None:
        return text + (
            f"{cut.inference or 'the model'!r} ran under torch.inference_mode(); write torch.no_grad() "
            "there, and pass through_no_grad=True"
        )
    if cut.no_grad is not None and not through_no_grad:
        return text + f"{cut.no_grad or 'the model'!r} ran under torch.no_grad(); pass through_no_grad=True"
    alternative = (
        "the features after it as image" if "image" in cut.lost else "the embeddings after it as words"
    )
    return text + (
        "it is cut on the way (detach, a checkpoint with use_reentrant=True, a frozen table "
        f"in a scripted module); pass {alternative}"
    )


def _two_embeddings(recorder: ProductRecorder, output: Any) -> bool:
    """Whether the output holds a vector of the image and one of the words, of the same size."""
    embeddings = [
        (recorder.depends(tensor), tensor.shape) for tensor in tensors_in(output) if tensor.ndim == 2
    ]
    return any((WORDS, shape) in embeddings for flags, shape in embeddings if flags == IMAGE)
