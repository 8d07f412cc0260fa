"""Records of a forward pass: its products of image and words, and their factors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from hvx.capture.factors import Form
from hvx.errors import HvxError


@dataclass(frozen=True)
class Product:
    """An element-wise product of two tensors, one that depends on the image and one on the words.

    Attributes:
        number: its index among the products, in the order of the forward pass.
        name: module path and ``file:line``, such as ``fusion:model.py:16``; ``model.py:16`` in the model's
            own forward. Several of one line end in ``#1``, ``#2``. It does not depend on dtype or device.
        module: path of the module whose forward computed it, "" for the model itself.
        line: file and line that computed it.
        operation: PyTorch's name of it, such as ``mul``; ``bmm``: a sum of products, as in Σ (v ∘ t).
        shape: of the product; before the sum.
        visual: what the factor V depends on: "image", or "image and words" (after an attention).
        textual: what the factor Q depends on: "words", or "image and words" (a later block of MRN).
        form: its kind; see ``Form``.
    """

    number: int
    name: str
    module: str
    line: str
    operation: str
    shape: tuple[int, ...]
    visual: str
    textual: str
    form: Form

    @property
    def joint(self) -> bool:
        """Whether it is one vector for each question, and V and Q are known."""
        return self.form in (Form.JOINT, Form.GATE)

    def __str__(self) -> str:
        return (
            f"{self.number}: {self.operation} {self.shape} in {self.module or 'the model'!r} ({self.line}), "
            f"V of {self.visual}, Q of {self.textual}, {self.form}"
        )


class Factor:
    """A factor of a product: its values, and where gradients enter it.

    The values share the model's memory, since a factor over a grid is large; ``keep`` copies them.

    Attributes:
        edge: where gradients enter the tensor of the graph.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.edge: GradientEdge = get_gradient_edge(tensor)
        self._values = tensor.detach()
        # A tensor detached within a dispatch mode has its own version counter.
        self._counted, self._version = tensor, tensor._version

    @property
    def values(self) -> Tensor:
        """The values at the time of the product.

        Raises:
            HvxError: they were overwritten after the forward.
        """
        if self._counted._version != self._version:
            raise HvxError(
                f"a factor {tuple(self._values.shape)} of the product was written to after the forward; "
                "explain first, then write to it"
            )
        return self._values

    def keep(self) -> None:
        """Copy the values before an operation writes to their memory."""
        self._values = self._counted = self.values.clone()
        self._version = self._counted._version


@dataclass(frozen=True)
class RecordedProduct:
    """A product with its factors."""

    product: Product
    visual: Factor
    textual: Factor
    rows: int | None
    """The axis of the questions; None if the product has no row for each question."""
    site: tuple[str, int]
    """Line and bytecode instruction that computed it."""


@dataclass(frozen=True)
class Cut:
    """A product that joins image and words, but gives no gradient to one of them."""

    module: str
    line: str
    lost: str
    no_grad: str | None
    """The module that ran without gradients, if one did."""
    inference: str | None
    """The module that ran in inference mode, if one did."""


@dataclass(frozen=True)
class Softmax:
    """A softmax of values that depend on image and words: possibly an attention.

    Attributes:
        values: its output.
        dim: the dimension along which it sums to 1.
        node: computed its input.
        line: file and line that computed it.
    """

    values: Tensor
    dim: int
    node: Node
    line: str
