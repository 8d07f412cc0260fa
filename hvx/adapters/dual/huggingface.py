"""CLIP and SigLIP of Hugging Face's transformers, from a folder or from the hub."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from hvx.adapters.dual.encoder import DualEncoder
from hvx.adapters.dual.extra import needed, one_line, quiet, three
from hvx.adapters.dual.words import TextTokenizer
from hvx.config import ImageConfig
from hvx.errors import HvxError, shown
from hvx.files import read_json

_CLASSES = {"clip": "CLIPModel", "siglip": "SiglipModel"}
"""``model_type`` of a config.json → the class."""
_TEXTS = ("*.json", "*.txt", "*.model")
_SAFE, _PICKLED = "*.safetensors", "pytorch_model*.bin"
_HUB = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class HuggingFaceSource:
    """The model that a config names: a folder of transformers, and its preprocessing."""

    name: str
    folder: Path
    kind: str
    image: ImageConfig

    @property
    def files(self) -> list[Path]:
        """All files that determine what the network computes, except transformers itself."""
        paths = {path for pattern in (*_TEXTS, _SAFE) for path in self.folder.glob(pattern)}
        return (
            sorted(paths) if any(self.folder.glob(_SAFE)) else sorted(paths | set(self.folder.glob(_PICKLED)))
        )


def find(name: str, root: Path) -> HuggingFaceSource:
    """The model that ``name`` stands for; files from the hub are fetched if needed.

    Args:
        name: a folder with a config.json, tokenizer and weights, or the id of a repository on the hub.
        root: a relative path starts here.

    Raises:
        HvxError: there is no such folder or repository, or it holds another kind of network.
    """
    transformers = needed("transformers")
    folder = root / name
    if not folder.is_dir():
        folder = _fetched(name)
    settings = read_json(folder / "config.json", "the configuration of a network of transformers")
    kind = settings.get("model_type") if isinstance(settings, dict) else None
    if kind not in _CLASSES:
        raise HvxError(
            f"{folder / 'config.json'}: model_type {shown(kind)}; hvx explains {' and '.join(_CLASSES)}"
        )
    if not any(any(folder.glob(pattern)) for pattern in (_SAFE, _PICKLED)):
        raise HvxError(f"{folder}: no weights; expected model.safetensors")
    with one_line(f"{folder}: no preprocessing of images"), quiet():
        processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        image = _image(processor, config.vision_config.image_size)
    return HuggingFaceSource(name, folder, kind, image)


def _fetched(name: str) -> Path:
    """The local folder with the hub's files of a repository."""
    if not _HUB.fullmatch(name):
        raise HvxError(
            f"model.name: {shown(name)} is no folder and no id such as openai/clip-vit-base-patch32"
        )
    from huggingface_hub import snapshot_download

    with one_line(f"model.name: {name}: no such folder, and the hub's files cannot be fetched"), quiet():
        folder = Path(snapshot_download(name, allow_patterns=[*_TEXTS, _SAFE]))
        if not any(folder.glob(_SAFE)):
            folder = Path(snapshot_download(name, allow_patterns=[*_TEXTS, _PICKLED]))
    return folder


def _image(processor: Any, size: int) -> ImageConfig:
    bilinear = processor.resample == Image.Resampling.BILINEAR
    return ImageConfig(
        size=size,
        interpolation="bilinear" if bilinear else "bicubic",
        mean=three(processor.image_mean),
        std=three(processor.image_std),
    )


def load(source: HuggingFaceSource, device: torch.device) -> DualEncoder:
    """Build the network that was found.

    Raises:
        HvxError: the weights are another network's, or cannot be read safely.
    """
    transformers = needed("transformers")
    with one_line(f"{source.folder}: transformers cannot read it"), quiet():
        kind = getattr(transformers, _CLASSES[source.kind])
        network, loading_info = kind.from_pretrained(
            source.folder, local_files_only=True, output_loading_info=True, weights_only=True,
            dtype=torch.float32,
        )  # fmt: skip
        tokenizer = transformers.AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
    for key in ("missing_keys", "mismatched_keys"):
        absent = sorted(str(name) for name in loading_info[key])
        if absent:  # transformers would continue with random weights
            raise HvxError(
                f"{source.folder}: not the weights of its config.json: {len(absent)} tensors are missing or "
                f"misshapen, such as {absent[0]}"
            )
    network = network.eval().requires_grad_(False).to(device)
    bias = getattr(network, "logit_bias", None)
    length = network.config.text_config.max_position_embeddings
    return DualEncoder(
        name=f"transformers {source.name}",
        network=network,
        image=source.image,
        image_tower=lambda pixels: _vectors(network.get_image_features(pixel_values=pixels)),
        text_tower=lambda ids: _vectors(network.get_text_features(input_ids=ids)),
        tokenizer=of_transformers(tokenizer, _padded(tokenizer, length)),
        embeddings=network.text_model.get_input_embeddings(),
        patches=network.vision_model.embeddings.patch_embedding,
        scale=float(network.logit_scale.exp()),
        bias=0.0 if bias is None else float(bias),
        sigmoid=bias is not None,
    )


def _vectors(output: Any) -> Tensor:
    """A tower's output: a tensor, or since transformers 5 an object that contains it."""
    return output if isinstance(output, Tensor) else output.pooler_output


def _padded(tokenizer: Any, length: int) -> Callable[[list[str]], Tensor]:
    """Texts → ids padded to the length that the towers were trained with."""
    return lambda texts: (
        tokenizer(
            texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).input_ids
    )


def of_transformers(tokenizer: Any, encode: Callable[[list[str]], Tensor]) -> TextTokenizer:
    """A tokenizer of transformers.

    Args:
        tokenizer: for the pieces.
        encode: texts → ids (N, L), by this tokenizer.
    """
    starts = [tokenizer.bos_token_id, getattr(tokenizer, "cls_token_id", None)]
    ends = [tokenizer.eos_token_id, getattr(tokenizer, "sep_token_id", None), tokenizer.pad_token_id]
    unknown = tokenizer.unk_token_id
    closing = frozenset(token_id for token_id in ends if token_id is not None)
    return TextTokenizer(
        encode=encode,
        piece=lambda token_id: str(tokenizer.convert_ids_to_tokens(token_id)),
        decode=lambda ids: str(tokenizer.decode(ids)),
        start=next((token_id for token_id in starts if token_id is not None), None),
        ends=closing,
        unknown=None if unknown in closing else unknown,
    )
