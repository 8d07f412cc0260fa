"""Keeping a forward pass differentiable that was written for inference."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hvx.capture.watch import Watch

_RNNS = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
_FUSED = _RNNS | {
    "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell", "scaled_dot_product_attention",
    "multi_head_attention_forward",
}  # fmt: skip
"""PyTorch's own: by dtype and device one kernel or many operations, whose products are not the model's."""


class Differentiable(TorchFunctionMode):
    """What keeps a forward pass differentiable that was written for inference, its values unchanged.

    Frozen embedding tables yield embeddings with a gradient, ``out=`` is written by a copy, and RNNs on
    a GPU run on PyTorch's kernels (cuDNN's have no backward in evaluation mode).

    Args:
        through_no_grad: leave out what the model does to switch gradients off.
        watch: told while one of PyTorch's own recurrences or attentions runs.
    """

    def __init__(self, through_no_grad: bool, watch: Watch) -> None:
        super().__init__()
        self._through, self._watch = through_no_grad, watch
        self._tables: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = self._run(func, args, dict(kwargs or {}))
        self._watch.note_line(made)
        return made

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
            made = func(*args, **{key: value for key, value in kwargs.items() if key != "out"})
            return out.resize_(made.shape).copy_(made)
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
        """The arguments of an embedding's look-up, with a table that takes gradients."""
        place = 0 if func is torch.embedding else 1
        table = args[place] if len(args) > place else kwargs["weight"]
        if table.requires_grad or not torch.is_grad_enabled():
            return args, kwargs
        # The same stand-in for each look-up in a table; the table is kept, so that its id stays its own.
        _, stand_in = self._tables.setdefault(id(table), (table, table.detach().requires_grad_()))
        if len(args) > place:
            return (*args[:place], stand_in, *args[place + 1 :]), kwargs
        return args, kwargs | {"weight": stand_in}
