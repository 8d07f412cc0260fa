"""Making a forward pass that was written for inference differentiable."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hvx.capture.recorder import ProductRecorder

_RNNS = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
_FUSED = _RNNS | {
    "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell", "scaled_dot_product_attention",
    "multi_head_attention_forward",
}  # fmt: skip
"""PyTorch's functions that run as one kernel or as many operations, by dtype and device: their products are
not the model's."""


class Differentiable(TorchFunctionMode):
    """Makes a forward pass that was written for inference differentiable, without changing its values.

    Embeddings of frozen tables get a gradient, ``out=`` is written by a copy, and RNNs on a GPU run on
    PyTorch's kernels (cuDNN's have no backward in evaluation mode).

    Args:
        through_no_grad: ignore the model's attempts to switch gradients off.
        recorder: notified while one of PyTorch's RNNs or attentions runs.
    """

    def __init__(self, through_no_grad: bool, recorder: ProductRecorder) -> None:
        super().__init__()
        self._through, self._watch = through_no_grad, recorder
        self._tables: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = self._run(func, args, dict(kwargs or {}))
        self._watch.note_line(result)
        return result

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = getattr(func, "__name__", "")
        if name == "_set_grad_enabled" and self._through:
            return None
        if name == "embedding":
            args, kwargs = self._with_gradient(func, args, kwargs)
        elif name in _FUSED:
            return self._fused(func, args, kwargs)
        out = kwargs.get("out")
        if isinstance(out, Tensor) and torch.is_grad_enabled():
            result = func(*args, **{key: value for key, value in kwargs.items() if key != "out"})
            return out.resize_(result.shape).copy_(result)
        return func(*args, **kwargs)

    def _fused(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._watch.inside += 1
        try:
            with torch.backends.cudnn.flags(enabled=False):
                return func(*args, **kwargs)
        finally:
            self._watch.inside -= 1

    def _with_gradient(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of an embedding look-up, with a table that requires gradients."""
        position = 0 if func is torch.embedding else 1
        table = args[position] if len(args) > position else kwargs["weight"]
        if table.requires_grad or not torch.is_grad_enabled():
            return args, kwargs
        # One stand-in for all look-ups in a table. A reference to the table keeps its id from being reused.
        _, stand_in = self._tables.setdefault(id(table), (table, table.detach().requires_grad_()))
        if len(args) > position:
            return (*args[:position], stand_in, *args[position + 1 :]), kwargs
        return args, kwargs | {"weight": stand_in}
