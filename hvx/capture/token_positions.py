"""The token of each looked-up word embedding, also if the model rearranged its ids before the look-up."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

_MOVES = {
    "clone", "_to_copy", "index", "index_select", "gather", "take", "cat", "stack", "repeat", "flip", "roll",
    "constant_pad_nd", "_reshape_copy", "_unsafe_view", "masked_select", "_pack_padded_sequence",
}  # fmt: skip
"""Operations that copy entries of their first argument to other positions."""
_KEEPS = {
    "add", "sub", "mul", "clamp", "clamp_min", "clamp_max", "minimum", "maximum", "where", "masked_fill",
    "remainder", "abs",
}  # fmt: skip
"""Operations that leave each entry at its position."""

_INTEGERS = {torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8}


class Positions:
    """For integer tensors computed from the ids: the position in the ids, from 1, of each entry.

    Positions are stored for each storage, so that they hold for all its views and follow writes to them.
    Moves (a transpose made contiguous, rows sorted by length, one step of a loop, a packed sequence)
    are repeated on the positions.

    Args:
        ids: (N, T) as passed to the model.
    """

    def __init__(self, ids: Tensor) -> None:
        self._positions: dict[int, tuple[torch.UntypedStorage, Tensor]] = {}
        self._set(ids, torch.arange(1, ids.numel() + 1, device=ids.device).view(ids.shape))

    def of(self, tensor: Tensor) -> Tensor | None:
        """Positions of a tensor's entries, 0 for an entry that is not an id; None if none is known."""
        if tensor.layout != torch.strided:
            return None
        entry = self._positions.get(tensor.untyped_storage()._cdata)
        return None if entry is None else _laid_out(entry[1], tensor)

    def follow(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Track what an operation did with tensors whose positions are known."""
        first = out[0] if isinstance(out, tuple | list) and out else out
        if not isinstance(first, Tensor) or first.dtype not in _INTEGERS or first.layout != torch.strided:
            return
        name = func.overloadpacket.__name__
        if name == "copy_":
            source, target = self.of(args[1]), self.of(first)
            if source is not None or target is not None:
                self._set(first, 0 if source is None else source.expand(first.shape).to(first.device))
        elif self.of(first) is not None:
            return  # a view, or an operation in place
        elif name in _MOVES:
            self._move(func, args, kwargs, first)
        elif name in _KEEPS:
            same = [self.of(a) for a in args if isinstance(a, Tensor) and a.shape == first.shape]
            known = next((positions for positions in same if positions is not None), None)
            if known is not None:
                self._set(first, known)

    def _move(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
        source, rest = args[0], args[1:]
        parts = list(source) if isinstance(source, list | tuple) else [source]
        known = [self.of(part) for part in parts]
        if all(positions is None for positions in known):
            return
        moved = [
            torch.zeros_like(part, dtype=torch.long) if positions is None else positions
            for part, positions in zip(parts, known, strict=True)
        ]
        if func.overloadpacket.__name__ == "constant_pad_nd":
            rest = rest[:1]  # padded with 0, which is no position
        if func.overloadpacket.__name__ == "_to_copy":
            kwargs = {"device": out.device}
        result = func(moved if isinstance(source, list | tuple) else moved[0], *rest, **kwargs)
        self._set(out, result[0] if isinstance(result, tuple | list) else result)

    def _set(self, tensor: Tensor, positions: Tensor | int) -> None:
        storage = tensor.untyped_storage()
        entries = storage.nbytes() // tensor.element_size()
        new = (storage, torch.zeros(entries, dtype=torch.long, device=tensor.device))
        storage_positions = self._positions.setdefault(
            storage._cdata, new
        )  # a reference, so that the address is not reused
        _laid_out(storage_positions[1], tensor)[...] = positions


def _laid_out(positions: Tensor, tensor: Tensor) -> Tensor:
    """The positions of a storage as a view like that of the tensor."""
    return positions.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
