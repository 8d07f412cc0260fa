"""Tensors from a file, without unrestricted unpickling."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from hvx.errors import HvxError
from hvx.models.weights import read_state_dict


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of safetensors or PyTorch, without a leading ``module.``.

    Raises:
        HvxError: the file is neither, or contains more than tensors.
    """
    if path.suffix == ".safetensors":
        try:
            state = load_file(path)
        except Exception as error:
            raise HvxError(f"{path}: not a readable safetensors file: {error}") from None
    else:
        state = read_state_dict(path)
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}
