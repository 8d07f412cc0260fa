"""Weights for a CNN from common files: nested, prefixed, with another classifier or none."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hvx.errors import HvxError

_NESTS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
"""Keys under which training scripts save a state dict, the most common first."""
_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
"""Tensor names in torchvision's published DenseNets, which torchvision also corrects."""
_COUNTER = "num_batches_tracked"
"""A buffer of BatchNorm; files of PyTorch 0.4.0 and before lack it, and evaluation does not need it."""

_log = logging.getLogger(__name__)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A state dict from a file, with tensors only: nothing else is unpickled.

    It may be under a key such as ``state_dict``, next to an epoch or an optimizer's state.

    Raises:
        HvxError: not a file of tensors by name.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the restricted unpickler raises many kinds of exceptions for broken files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise HvxError(
            f"{path}: not a state dict of tensors that can be read safely: {reason:.120}"
        ) from None
    if not _is_state_dict(loaded) and isinstance(loaded, dict):
        loaded = next((loaded[key] for key in _NESTS if _is_state_dict(loaded.get(key))), loaded)
    if not _is_state_dict(loaded):
        raise HvxError(f"{path}: expected a state dict, tensors by name, or one under {' or '.join(_NESTS)}")
    return {str(name): tensor for name, tensor in loaded.items()}


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(t, Tensor) for t in value.values())


def fill_from(
    network: nn.Module, full: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str
) -> None:
    """Fill a network that was cut from a larger one; the file need not contain the removed layers.

    The names in the file may have a prefix such as ``module.``, and DenseNets may have the names of
    torchvision's published files. A log message names tensors that the larger network does not have.

    Args:
        network: the part that is used; its tensors are named as in ``full``.
        full: the state dict of the larger network, for its names and shapes.
        state: of the file.
        source: names the file in errors.

    Raises:
        HvxError: a tensor that is needed is missing, has another shape, or has NaN or infinity.
    """
    needed = {name: t for name, t in network.state_dict().items() if not name.endswith(_COUNTER)}
    renamed = {_DENSENET.sub(r"\1\2", name): tensor for name, tensor in state.items()}
    prefix = _prefix(renamed, needed)
    by_name = {n.removeprefix(prefix): tensor for n, tensor in renamed.items() if n.startswith(prefix)}
    for name, tensor in needed.items():
        if name not in by_name:
            raise HvxError(f"{source}: no tensor '{prefix}{name}'")
        if by_name[name].shape != tensor.shape:
            shapes = f"{tuple(by_name[name].shape)}; the network has {tuple(tensor.shape)}"
            raise HvxError(f"{source}: tensor '{prefix}{name}' has shape {shapes}")
    used = {name: by_name[name] for name in needed}
    unused = [
        prefix + name for name, t in by_name.items() if name not in full or full[name].shape != t.shape
    ] + [name for name in renamed if not name.startswith(prefix)]
    if unused:
        _log.warning("%s: %d tensors are not used: %s", source, len(unused), ", ".join(sorted(unused)))
    counters = {name: torch.zeros(()) for name in network.state_dict() if name not in needed}
    fill(network, counters | used, source)


def _prefix(state: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> str:
    """The prefix of the network's names in a file: the one that fits most names, then the shortest."""
    last = next(iter(needed))
    candidates = {name.removesuffix(last) for name in state if name == last or name.endswith(f".{last}")}
    fits = {prefix: sum(prefix + name in state for name in needed) for prefix in candidates | {""}}
    return min(fits, key=lambda prefix: (-fits[prefix], len(prefix), prefix))


def fill(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load the tensors of a state dict into an empty network, converted to the network's dtypes.

    Args:
        network: has tensors of the same names and shapes.
        state: of the file.
        source: names the file in errors.

    Raises:
        HvxError: names the first tensor without finite real numbers in the network's precision.
    """
    dtypes = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    cast = {name: _cast(tensor, dtypes[name], f"{source}: tensor '{name}'") for name, tensor in state.items()}
    network.load_state_dict(cast, assign=True)


def _cast(tensor: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """A tensor converted to a dtype. Weights with NaN or infinity would make every map NaN."""
    if tensor.layout != torch.strided or (dtype.is_floating_point and not tensor.is_floating_point()):
        # For example quantized weights: without their scale the numbers are wrong.
        raise HvxError(f"{name} holds {_kind(tensor)}; expected a plain tensor of {_short(dtype)}")
    cast = tensor.to(dtype)
    if not dtype.is_floating_point and not bool((cast == tensor).all()):
        raise HvxError(f"{name} holds numbers that are not whole; expected {_short(dtype)}")
    if dtype.is_floating_point and not bool(cast.isfinite().all()):
        if bool(tensor.double().isfinite().all()):
            raise HvxError(f"{name} holds numbers too large for {_short(dtype)}")
        raise HvxError(f"{name} holds NaN or infinity; the file is damaged, or its training diverged")
    if name.endswith("running_var'") and bool((cast < 0).any()):
        raise HvxError(f"{name} holds negative variances; the file is damaged")
    return cast


def _kind(tensor: Tensor) -> str:
    layout = "" if tensor.layout == torch.strided else f"{_short(tensor.layout)} "
    return f"{layout}{_short(tensor.dtype)}"


def _short(dtype: torch.dtype | torch.layout) -> str:
    return str(dtype).removeprefix("torch.")
