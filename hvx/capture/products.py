"""``explain_product``: both explanations of any model that joins image and words by a Hadamard product."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from hvx.capture.equations import ProductExplanation, Rules, guided_by_default
from hvx.capture.forward import forward_pass
from hvx.capture.inputs import Inputs
from hvx.capture.watch import Product


def explain_product(
    model: nn.Module,
    inputs: Inputs,
    *,
    image: Tensor,
    words: Tensor | str | nn.Module,
    product: int | str | None = None,
    visual: str | None = None,
    mask: Tensor | None = None,
    guided: bool | None = None,
    other_activations: bool = False,
    through_no_grad: bool = False,
) -> ProductExplanation:
    """Explain the joint of image and words that a model of one's own computes in its forward.

    The model runs once, unchanged, in evaluation mode, and is left as it was. Each element-wise
    product is recorded of which one factor depends on the image and the other on the words, and one of
    the two on nothing else: ``torch.mul``, ``*``, ``*=``, ``addcmul``, ``einsum``, scripted or not. The one
    chosen gives V, Q and F; Eq. 2 sends V − F to the image, Eq. 3 sends Q − F through Q to the word
    embeddings. ``Form`` says which products are joints. Products that meet in one sum or concatenation
    are explained together (MUTAN, BLOCK).

    Guided backpropagation holds at the ReLUs of the image's side: those that depend on the image
    and not on the words, ahead of V. Other activations there are refused; ``tanh`` and ``sigmoid``
    after the last convolution keep their true gradients, as do ReLUs after a fusion with the words.

    Args:
        model: any module, or a method of one.
        inputs: what its forward takes: a sequence of arguments, or a mapping of keywords. Tensors
            may lie in sequences, mappings, dataclasses and objects with attributes.
        image: which tensor among the inputs is the image: (N, C, H, W), a row for each question, or
            (1, C, H, W) for N questions on one image; or features of any shape (N, …).
        words: the token ids (N, T) among the inputs, whose look-ups in embedding tables are found; or
            embeddings (N, T, E) among the inputs; or the module, or its path, that puts out the embeddings.
            Ids may be (T, N): where T = N, they are read as (N, T).
        product: its number in ``products``; or its name; or a module path or ``file:line``, if one joint
            is computed there. Without, the one joint of the forward.
        visual: which factor is V, where both depend on image and words: the path of the module, or the
            ``file:line``, that makes the values V comes from.
        mask: (N, T), true where there is a token; without, everywhere. For ids padded with 0: ``ids != 0``.
        guided: guided backpropagation; False: the plain gradient. Without, guided if ``image`` is pixels:
            (N, C, H, W), C at most 4.
        other_activations: let other activations of the image's side keep their true gradients.
        through_no_grad: leave out what the model's forward does to switch gradients off (a frozen CNN
            under ``torch.no_grad``).

    Raises:
        HvxError: the image or the words are not found, there is no such product, the choice is ambiguous,
            no gradient reaches the image or the words, or guided backpropagation is not defined.

    Warns:
        UserWarning: products that could be the joint were set aside, or Eq. 2 or Eq. 3 of a question is 0
            everywhere or not finite.
    """
    with forward_pass(model, inputs, image, words, through_no_grad) as found:
        rules = Rules(guided_by_default(image, guided), other_activations)
        chosen = found.default(visual) if product is None else found.one(product)
        return found.explain(chosen, rules, mask, visual)


def explain_products(
    model: nn.Module,
    inputs: Inputs,
    *,
    image: Tensor,
    words: Tensor | str | nn.Module,
    products: Sequence[int | str] | None = None,
    visual: str | None = None,
    mask: Tensor | None = None,
    guided: bool | None = None,
    other_activations: bool = False,
    through_no_grad: bool = False,
) -> list[ProductExplanation]:
    """Explain several products of one forward: a network of several blocks, such as MRN.

    Args:
        products: as ``product`` of ``explain_product``, several. Without, each product that is one vector
            for each question, by itself, in the order of the forward; gates only if there is nothing else.

    The other arguments, and what is raised, are those of ``explain_product``.
    """
    with forward_pass(model, inputs, image, words, through_no_grad) as found:
        rules = Rules(guided_by_default(image, guided), other_activations)
        if products is None:
            chosen = [[each] for each in found.candidates(visual)]
        else:
            chosen = [found.one(each) for each in products]
        return [found.explain(each, rules, mask, visual) for each in chosen]


def find_products(
    model: nn.Module,
    inputs: Inputs,
    *,
    image: Tensor,
    words: Tensor | str | nn.Module,
    through_no_grad: bool = False,
) -> list[Product]:
    """The products of image and words in a model's forward, attentions among them; none is explained.

    The arguments are those of ``explain_product``.

    Raises:
        HvxError: there is none; the line says what was seen.
    """
    with forward_pass(model, inputs, image, words, through_no_grad) as found:
        found.check()
        return found.products
