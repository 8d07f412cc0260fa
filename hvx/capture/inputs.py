"""The inputs of a foreign forward: image and words replaced by tensors whose gradients are followed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import fields, is_dataclass
from types import FunctionType, ModuleType
from typing import Any

from torch import Tensor, nn

from hvx.errors import HvxError

Inputs = Sequence[Any] | Mapping[str, Any]
_NO_BATCH = (nn.Module, Tensor, type, FunctionType, ModuleType)


def replaced(
    inputs: Inputs, kwargs: Mapping[str, Any] | None, pairs: Mapping[str, tuple[Tensor, Tensor]]
) -> tuple[list[Any], dict[str, Any]]:
    """Arguments and keywords of a forward, with these tensors put in the place of others, at any depth.

    They may lie in sequences, mappings, dataclasses and objects with attributes, which are copied.

    Args:
        inputs: arguments, or a mapping of keywords.
        kwargs: keywords besides arguments.
        pairs: name → (old, new), such as of "image".

    Raises:
        HvxError: a tensor is not among the inputs, or they are no arguments.
    """
    met: set[str] = set()

    def new_one(value: Any) -> Any:
        for name, (old, new) in pairs.items():
            if value is old:
                met.add(name)
                return new
        return value

    arguments, keywords = _call(inputs, kwargs)
    made = [rebuilt(each, new_one) for each in arguments]
    named = {key: rebuilt(each, new_one) for key, each in keywords.items()}
    for name in pairs:
        if name not in met:
            raise HvxError(
                f"{name}: not among the inputs; pass the very tensor that inputs holds, not a copy"
            )
    return made, named


def _call(inputs: Any, kwargs: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Arguments and keywords of a call.

    Raises:
        HvxError: they are given as something else.
    """
    if not isinstance(inputs, Sequence | Mapping) or isinstance(inputs, str):
        raise HvxError(f"inputs: {type(inputs).__name__} given; pass a sequence of arguments or a mapping")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise HvxError(f"kwargs: {type(kwargs).__name__} given; pass a mapping of keywords")
    if not isinstance(inputs, Mapping):
        return inputs, kwargs or {}
    if kwargs is not None:
        raise HvxError("kwargs: inputs is a mapping of keywords already; put these among them")
    return (), inputs


def rebuilt(value: Any, change: Callable[[Any], Any], above: tuple[int, ...] = ()) -> Any:
    """A value whose parts were changed by a function; containers are copied, ``value`` stays as it was.

    Args:
        value: a tensor, a container, an object or anything else.
        change: what a part becomes; a part that it returns itself is entered.
        above: ``id`` of the containers that ``value`` lies in: one that holds itself is entered once.
    """
    changed = change(value)
    if changed is not value or id(value) in above or isinstance(value, _NO_BATCH):
        return changed
    above = (*above, id(value))
    if isinstance(value, MutableMapping):
        made = copy.copy(value)
        for key, each in value.items():
            made[key] = rebuilt(each, change, above)
        return made
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(rebuilt(each, change, above) for each in value))
    if isinstance(value, list | tuple):
        return type(value)(rebuilt(each, change, above) for each in value)
    return _object(value, change, above)


def _object(value: Any, change: Callable[[Any], Any], above: tuple[int, ...]) -> Any:
    """A copy of an object with attributes, if one of them changes."""
    names = (
        [field.name for field in fields(value)]
        if is_dataclass(value)
        else list(getattr(value, "__dict__", ()))
    )
    old = {name: getattr(value, name) for name in names if hasattr(value, name)}
    new = {name: rebuilt(each, change, above) for name, each in old.items()}
    differing = {name: each for name, each in new.items() if _differs(old[name], each)}
    if not differing:
        return value
    made = copy.copy(value)
    for name, each in differing.items():
        object.__setattr__(made, name, each)  # frozen dataclasses too
    return made


def _differs(old: Any, new: Any) -> bool:
    """Whether a part was changed, and not only its containers copied."""
    if isinstance(old, MutableMapping):
        return any(_differs(old[key], new[key]) for key in old)
    if isinstance(old, list | tuple):
        return any(map(_differs, old, new))
    return new is not old
