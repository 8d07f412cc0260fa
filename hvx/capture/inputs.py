"""The inputs of an external forward: image and words are replaced by tensors with gradients."""

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
    """Arguments and keywords of a forward, with some tensors replaced by others, at any depth.

    Tensors may be nested in sequences, mappings, dataclasses and objects with attributes; these are copied.

    Args:
        inputs: arguments, or a mapping of keywords.
        kwargs: keywords, next to arguments.
        pairs: name → (old, new), for example of "image".

    Raises:
        HvxError: a tensor is not among the inputs, or the inputs are not arguments.
    """
    replaced_names: set[str] = set()

    def substitute(value: Any) -> Any:
        for name, (old, new) in pairs.items():
            if value is old:
                replaced_names.add(name)
                return new
        return value

    arguments, keywords = _call(inputs, kwargs)
    new_arguments = [rebuilt(value, substitute) for value in arguments]
    new_keywords = {key: rebuilt(value, substitute) for key, value in keywords.items()}
    for name in pairs:
        if name not in replaced_names:
            raise HvxError(
                f"{name}: not among the inputs; pass the very tensor that inputs holds, not a copy"
            )
    return new_arguments, new_keywords


def _call(inputs: Any, kwargs: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Arguments and keywords of a call.

    Raises:
        HvxError: ``inputs`` or ``kwargs`` is of another type.
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
    """A copy of a value whose parts are changed by a function; ``value`` itself is unchanged.

    Args:
        value: a tensor, a container, an object or anything else.
        change: part → new part; if it returns the same part, the parts of that part are changed.
        above: ``id`` of the containers around ``value``, so that one that holds itself is entered once.
    """
    changed = change(value)
    if changed is not value or id(value) in above or isinstance(value, _NO_BATCH):
        return changed
    above = (*above, id(value))
    if isinstance(value, MutableMapping):
        copied = copy.copy(value)
        for key, part in value.items():
            copied[key] = rebuilt(part, change, above)
        return copied
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(rebuilt(part, change, above) for part in value))
    if isinstance(value, list | tuple):
        return type(value)(rebuilt(part, change, above) for part in value)
    return _object(value, change, above)


def _object(value: Any, change: Callable[[Any], Any], above: tuple[int, ...]) -> Any:
    """A copy of an object with attributes, if one of them changes."""
    names = (
        [field.name for field in fields(value)]
        if is_dataclass(value)
        else list(getattr(value, "__dict__", ()))
    )
    old = {name: getattr(value, name) for name in names if hasattr(value, name)}
    new = {name: rebuilt(part, change, above) for name, part in old.items()}
    differing = {name: part for name, part in new.items() if _differs(old[name], part)}
    if not differing:
        return value
    copied = copy.copy(value)
    for name, part in differing.items():
        object.__setattr__(copied, name, part)  # frozen dataclasses too
    return copied


def _differs(old: Any, new: Any) -> bool:
    """Whether a part was changed, rather than only its containers copied."""
    if isinstance(old, MutableMapping):
        return any(_differs(old[key], new[key]) for key in old)
    if isinstance(old, list | tuple):
        return any(map(_differs, old, new))
    return new is not old
