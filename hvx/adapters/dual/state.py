"""Tensors from a file, and nothing else: nothing is unpickled freely."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from hvx.errors import HvxError
from hvx.models.weights import read_state_dict


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of safetensors or of PyTorch, a leading ``module.`` left out.

    Raises:
        HvxError: it is neither, or holds more than tensors.
    """
    if path.suffix == ".safetensors":
        try:
            state = load_file(path)
        except Exception as error:
            raise HvxError(f"{path}: not a readable safetensors file: {error}") from None
    else:
        state = read_state_dict(path)
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}
