"""``explain_product``: both explanations of any model that joins image and words by a Hadamard product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from hvx.capture.equations import BackwardRule, CotangentName, Reshape, RuleName, rule_of
from hvx.capture.forward import forward_pass
from hvx.capture.inputs import Inputs, replaced
from hvx.capture.records import Product
from hvx.capture.result import ProductExplanation
from hvx.capture.smooth import SmoothGrad, mean_over_noise
from hvx.errors import HvxError


def explain_product(
    model: nn.Module,
    inputs: Inputs,
    *,
    image: Tensor | str | nn.Module,
    words: Tensor | str | nn.Module,
    kwargs: Mapping[str, Any] | None = None,
    product: int | str | Sequence[str] | None = None,
    visual: str | None = None,
    mask: Tensor | None = None,
    rule: RuleName | None = None,
    smooth: SmoothGrad | None = None,
    reshape: Reshape | None = None,
    other_activations: bool = False,
    through_no_grad: bool = False,
    guided: bool | None = None,
    cotangent: CotangentName = "joint",
) -> ProductExplanation:
    """Explain the joint of image and words that your own model computes in its forward.

    The model runs once, unchanged, in evaluation mode, and is restored afterwards. hvx records each
    element-wise product of a factor that depends on the image and one that depends on the words; one of
    the two depends on nothing else: ``torch.mul``, ``*``, ``*=``, ``addcmul``, ``einsum``, scripted or not.
    The chosen product gives V, Q and F; Eq. 2 sends V − F to the image, Eq. 3 sends Q − F through Q to the
    word embeddings. ``Form`` says which products are joints. Products that meet in one sum or concatenation
    are explained together (MUTAN, BLOCK).

    Guided backpropagation applies to the ReLUs of the image branch: those before V that depend on the
    image and not on the words. Other activations there are refused; ``tanh`` and ``sigmoid``
    after the last convolution keep their true gradients, as do ReLUs after a fusion with the words.

    Args:
        model: any module, or a method of one.
        inputs: the inputs of its forward: a sequence of arguments, or a mapping of keywords. Tensors
            may be nested in sequences, mappings, dataclasses and objects with attributes.
        image: which tensor among the inputs is the image: (N, C, H, W), a row for each question, or
            (1, C, H, W) for N questions on one image; or features of any shape (N, …). Or the module, or its
            path, whose output Eq. 2 is taken at: a CNN's feature map, patch tokens.
        words: the token ids (N, T) among the inputs, whose look-ups in embedding tables are found; or
            embeddings (N, T, E) among the inputs; or the module, or its path, that returns the embeddings.
            Ids may be (T, N); if T = N, they are read as (N, T).
        kwargs: more keywords of the forward, next to ``inputs``.
        product: its number in ``products``; or its name; or a module path or ``file:line``, if one joint
            is computed there; or the names of several, explained together. If None, the only joint of the
            forward.
        visual: which factor is V, if both depend on image and words: the path of the module, or the
            ``file:line``, that computes the values V comes from.
        mask: (N, T), true where there is a token; if None, everywhere. For ids padded with 0: ``ids != 0``.
        rule: "guided" backpropagation, or "gradient", the plain one. If None, guided if ``image`` is pixels:
            (N, C, H, W), C at most 4.
        smooth: SmoothGrad: Eq. 2 is the mean over noisy images; the model runs again for each of them.
        reshape: makes a map (N, C, H, W) of a gradient at tokens (N, K, E), for the heat map; or the
            (H, W) of the patches, which are the last H · W tokens.
        other_activations: let other activations of the image branch keep their true gradients.
        through_no_grad: ignore the forward's attempts to switch gradients off (a frozen CNN
            under ``torch.no_grad``).
        guided: older name of ``rule``: True for "guided", False for "gradient".
        cotangent: "joint": V − F in Eq. 2, Q − F in Eq. 3; "score": Q and V, the cotangents of ΣF, the score
            of a dual encoder.

    Raises:
        HvxError: the image or the words are not found, there is no such product, the choice is ambiguous,
            no gradient reaches the image or the words, or guided backpropagation is not defined.

    Warns:
        UserWarning: other products could be the joint too, or Eq. 2 or Eq. 3 of a question is 0
            everywhere or not finite.
    """
    rule = rule_of(rule, guided)
    with forward_pass(
        model, inputs, image=image, words=words, kwargs=kwargs, through_no_grad=through_no_grad
    ) as forward:
        explanation = forward.explain(
            product, visual=visual, mask=mask, rule=rule, other_activations=other_activations,
            reshape=reshape, cotangent=cotangent,
        )  # fmt: skip
    if smooth is None:
        return explanation
    rules = BackwardRule(explanation.rule == "guided", other_activations, reshape, cotangent)

    def equation_2(noisy: Tensor) -> Tensor:
        arguments, keywords = replaced(inputs, kwargs, {"image": (_tensor(image), noisy)})
        with forward_pass(
            model, arguments, image=noisy, words=words, kwargs=keywords, through_no_grad=through_no_grad
        ) as noisy_forward:
            return noisy_forward.image_gradient([joined.name for joined in explanation.joined], visual, rules)

    mean = mean_over_noise(equation_2, _tensor(image), smooth)
    return replace(explanation, image_gradient=mean, image_map=rules.map(mean))


def _tensor(image: Tensor | str | nn.Module) -> Tensor:
    """The image that noise is added to."""
    if not isinstance(image, Tensor):
        raise HvxError("smooth: noise is added to the inputs; pass as image one of their tensors, no module")
    return image


def explain_products(
    model: nn.Module,
    inputs: Inputs,
    *,
    image: Tensor | str | nn.Module,
    words: Tensor | str | nn.Module,
    kwargs: Mapping[str, Any] | None = None,
    products: Sequence[int | str | Sequence[str]] | None = None,
    visual: str | None = None,
    mask: Tensor | None = None,
    rule: RuleName | None = None,
    reshape: Reshape | None = None,
    other_activations: bool = False,
    through_no_grad: bool = False,
    guided: bool | None = None,
    cotangent: CotangentName = "joint",
) -> list[ProductExplanation]:
    """Explain several products of one forward: a network of several blocks, such as MRN.

    Args:
        products: several, each as ``product`` of ``explain_product``. If None, each product that is one
            vector for each question, in the order of the forward; gates only if there is nothing else.

    The other arguments, and what is raised, are those of ``explain_product``.
    """
    rule = rule_of(rule, guided)
    with forward_pass(
        model, inputs, image=image, words=words, kwargs=kwargs, through_no_grad=through_no_grad
    ) as forward:
        return forward.explain_each(
            products, visual=visual, mask=mask, rule=rule,
            other_activations=other_activations, reshape=reshape, cotangent=cotangent,
        )  # fmt: skip


def find_products(
    model: nn.Module,
    inputs: Inputs,
    *,
    image: Tensor | str | nn.Module,
    words: Tensor | str | nn.Module,
    kwargs: Mapping[str, Any] | None = None,
    through_no_grad: bool = False,
) -> list[Product]:
    """The products of image and words in a model's forward, including attentions; none is explained.

    The arguments are those of ``explain_product``.

    Raises:
        HvxError: there is none; the message says what was seen.
    """
    with forward_pass(
        model, inputs, image=image, words=words, kwargs=kwargs, through_no_grad=through_no_grad
    ) as forward:
        forward.choice.check()
        return forward.products
