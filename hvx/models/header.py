"""The header of a native checkpoint, read without its tensors and without PyTorch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeGuard

import msgspec

from hvx.config import ModelConfig, checked
from hvx.errors import HvxError, shown

FORMAT = 1
_LARGEST_HEADER = 100_000_000
"""Bytes; the format's limit."""


class _Tensor(msgspec.Struct):
    """What the header of a safetensors file says of a tensor."""

    dtype: str
    shape: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]
    data_offsets: tuple[int, int]


@dataclass(frozen=True)
class CheckpointHeader:
    """The description in a native checkpoint, read without its tensors.

    ``shapes`` are those of its tensors by name: ``head.*``, and ``backbone.*`` if it contains them.
    """

    config: ModelConfig
    words: list[str]
    answers: list[str]
    training: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]

    @property
    def carries_backbone(self) -> bool:
        """Whether the backbone's weights are in the file."""
        return any(name.startswith("backbone.") for name in self.shapes)


def read_header(path: Path) -> CheckpointHeader:
    """Read only the header of a native checkpoint.

    Raises:
        HvxError: no such file, or not a native checkpoint.
    """
    if not path.is_file():
        raise HvxError(f"{path}: no such checkpoint" + (" (a folder)" if path.is_dir() else ""))
    other = _other_format(path)
    if other:
        raise HvxError(f"{path}: {other}, not a native checkpoint (safetensors)")
    try:
        metadata, tensors = _safetensors_header(path)
    except (OSError, ValueError, RecursionError) as error:
        raise HvxError(f"{path}: not a readable safetensors checkpoint: {error}") from None
    return _native_header(metadata, {name: tensor.shape for name, tensor in tensors.items()}, path)


def _safetensors_header(path: Path) -> tuple[dict[str, str], dict[str, _Tensor]]:
    """The metadata and the tensors of a safetensors file. The library's own reader loads NumPy or PyTorch.

    The file starts with the header's length (8 bytes, little-endian) and the header, a JSON object; the rest
    is the tensors' data, without gaps.

    Raises:
        ValueError: the file has another structure, or lacks data.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LARGEST_HEADER:
            raise ValueError(f"its header has {length:,} bytes")
        fields = msgspec.json.decode(file.read(length), type=dict[str, msgspec.Raw])
    metadata = msgspec.json.decode(fields.pop("__metadata__", b"{}"), type=dict[str, str])
    tensors = {name: msgspec.json.decode(raw, type=_Tensor) for name, raw in fields.items()}
    end = 0
    for start, stop in sorted(tensor.data_offsets for tensor in tensors.values()):
        if start != end or stop < start:
            raise ValueError(f"its tensors' data have a gap or overlap at byte {end:,}")
        end = stop
    expected, size = 8 + length + end, path.stat().st_size
    if size != expected:
        raise ValueError(f"it has {size:,} bytes in place of {expected:,}")
    return metadata, tensors


_IMPORTED = (
    "`hvx import` converts published models, `hvx.explain_product` explains any PyTorch model in Python"
)
_FORMATS = {
    b"PK\x03\x04": f"a zip archive, as PyTorch writes; {_IMPORTED}",
    b"\x80": f"a PyTorch pickle; {_IMPORTED}",
    b"\x03\0\0\0\x01\0\0\0": "a Torch7 file; see `hvx import torch7`",
    b"\x04\0\0\0\x01\0\0\0": "a Torch7 file; see `hvx import torch7`",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a gzip file; unpack it",
    b"\x93NUMPY": "a NumPy array",
    b"version ": "a Git LFS pointer; fetch the file that it stands for (`git lfs pull`)",
    b"<": "an HTML or XML page; the download failed",
}
"""First bytes of files that may be passed as checkpoints → the message for each."""


def _other_format(path: Path) -> str | None:
    """The kind of a file that is not a safetensors file, if its first bytes show it; else None."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise HvxError(f"{path}: cannot be read: {error.strerror}") from None
    if not start:
        return "empty"
    if start[8:] == b"{":  # the header of a safetensors file, after its length
        return None
    return next((text for magic, text in _FORMATS.items() if start.startswith(magic)), None)


def _native_header(
    metadata: dict[str, str], shapes: dict[str, tuple[int, ...]], path: Path
) -> CheckpointHeader:
    """The header of a safetensors file with this metadata.

    Raises:
        HvxError: it is not one of a native checkpoint.
    """
    try:
        about = json.loads(metadata.get("hvx", "null"))
    except (ValueError, RecursionError) as error:
        raise HvxError(f"{path}: not a readable safetensors checkpoint: {error}") from None
    if not isinstance(about, dict) or "format" not in about:
        raise HvxError(f"{path}: a safetensors file, but not a native hvx checkpoint (no 'hvx' metadata)")
    if about["format"] != FORMAT:
        raise HvxError(f"{path}: checkpoint format {shown(about['format'])}; this hvx reads {FORMAT}")
    source = f"{path} (metadata)"
    config = checked(ModelConfig, _with_old_defaults(about.get("model")), source)
    words, answers, training = about.get("words"), about.get("answers"), about.get("training") or {}
    if not (_is_list_of_strings(words) and _is_list_of_strings(answers)):
        raise HvxError(f"{source}: 'words' and 'answers' must be lists of strings")
    if not isinstance(training, dict):
        raise HvxError(f"{source}: 'training' must be an object")
    return CheckpointHeader(config, words, answers, training, shapes)


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dict's values by dotted key, each after ``prefix``: ``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    by_key: dict[str, Any] = {}
    for key, value in tree.items():
        by_key |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return by_key


def _with_old_defaults(model: Any) -> Any:
    """Complete a stored model section from before ``sentences`` and ``max_tokens``, so that its questions are
    tokenized as before, regardless of the current defaults of its form."""
    if isinstance(model, dict) and isinstance(model.get("encoder"), dict):
        old_defaults = {"sentences": False, "max_tokens": None}
        return model | {"encoder": old_defaults | model["encoder"]}
    return model


def _is_list_of_strings(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
