"""Which token each looked-up word embedding belongs to, however the model shuffled its ids first."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

_MOVES = {
    "clone", "_to_copy", "index", "index_select", "gather", "take", "cat", "stack", "repeat", "flip", "roll",
    "constant_pad_nd", "_reshape_copy", "_unsafe_view", "masked_select", "_pack_padded_sequence",
}  # fmt: skip
"""Operations whose result holds entries of their first argument, elsewhere."""
_KEEPS = {
    "add", "sub", "mul", "clamp", "clamp_min", "clamp_max", "minimum", "maximum", "where", "masked_fill",
    "remainder", "abs",
}  # fmt: skip
"""Operations that leave each entry where it is."""

_INTEGERS = {torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8}


class Positions:
    """For integer tensors made from the ids: the place in the ids, from 1, that each entry came from.

    Places are kept for each storage, so that every view of it, and every write through one, is known.
    Moves (a transpose made contiguous, rows sorted by length, one step of a loop, a packed sequence)
    are repeated on the places.

    Args:
        ids: (N, T) as handed to the model.
    """

    def __init__(self, ids: Tensor) -> None:
        self._places: dict[int, tuple[torch.UntypedStorage, Tensor]] = {}
        self._set(ids, torch.arange(1, ids.numel() + 1, device=ids.device).view(ids.shape))

    def of(self, tensor: Tensor) -> Tensor | None:
        """Places of a tensor's entries, 0 for an entry that is none of the ids; None if none is known."""
        if tensor.layout != torch.strided:
            return None
        found = self._places.get(tensor.untyped_storage()._cdata)
        return None if found is None else _laid_out(found[1], tensor)

    def follow(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Note what an operation did with tensors whose places are known."""
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
            known = next((places for places in same if places is not None), None)
            if known is not None:
                self._set(first, known)

    def _move(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
        source, rest = args[0], args[1:]
        parts = list(source) if isinstance(source, list | tuple) else [source]
        known = [self.of(part) for part in parts]
        if all(places is None for places in known):
            return
        moved = [
            torch.zeros_like(part, dtype=torch.long) if places is None else places
            for part, places in zip(parts, known, strict=True)
        ]
        if func.overloadpacket.__name__ == "constant_pad_nd":
            rest = rest[:1]  # padded with 0, which is no place
        if func.overloadpacket.__name__ == "_to_copy":
            kwargs = {"device": out.device}
        result = func(moved if isinstance(source, list | tuple) else moved[0], *rest, **kwargs)
        self._set(out, result[0] if isinstance(result, tuple | list) else result)

    def _set(self, tensor: Tensor, places: Tensor | int) -> None:
        storage = tensor.untyped_storage()
        entries = storage.nbytes() // tensor.element_size()
        new = (storage, torch.zeros(entries, dtype=torch.long, device=tensor.device))
        kept = self._places.setdefault(storage._cdata, new)  # holding it keeps its address its own
        _laid_out(kept[1], tensor)[...] = places


def _laid_out(places: Tensor, tensor: Tensor) -> Tensor:
    """The entries of a storage's places that a tensor shows, in its shape."""
    return places.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
