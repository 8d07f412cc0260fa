"""Dual encoders as open_clip builds them, with published weights, a file's or random ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hvx.adapters.dual.encoder import DualEncoder
from hvx.adapters.dual.extra import RANDOM, needed, one_line, quiet, three
from hvx.adapters.dual.huggingface import of_transformers
from hvx.adapters.dual.state import read_tensors
from hvx.adapters.dual.words import TextTokenizer
from hvx.config import ImageConfig
from hvx.errors import HvxError, did_you_mean, shown

CONFIG, WEIGHTS = "open_clip_config.json", ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""The files of a folder that open_clip writes for a user's own model."""


@dataclass(frozen=True)
class OpenClipSource:
    """The model that a config names: its weights (random if None), its configuration, its preprocessing."""

    name: str
    folder: Path | None
    weights: Path | None
    image: ImageConfig

    @property
    def files(self) -> list[Path]:
        """All files that determine what the network computes, except open_clip itself."""
        config_files = [self.folder / CONFIG] if self.folder else []
        return config_files + ([self.weights] if self.weights else [])


def find(name: str, pretrained: str | None, root: Path) -> OpenClipSource:
    """The model that ``name`` and ``pretrained`` stand for; published weights of a tag are fetched if needed.

    Args:
        name: of open_clip's models, or a folder that holds ``open_clip_config.json`` and weights.
        pretrained: a tag, a file, or "random".
        root: relative paths start here.

    Raises:
        HvxError: there is no such model, tag or file.
    """
    open_clip = needed("open_clip")
    if (root / name).is_dir():
        return _folder(root / name, pretrained)
    known = open_clip.list_models()
    if name not in known:
        raise HvxError(
            f"model.name: open_clip has no model {shown(name)}{did_you_mean(name, known)}, and there is no "
            "folder of that name; `open_clip.list_models()` lists them"
        )
    vision = open_clip.get_model_config(name)["vision_cfg"]
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained is None:
        raise HvxError(f"model.pretrained is missing: {_choices(name, tags)}")
    file = root / pretrained
    if pretrained in tags:
        cfg = open_clip.get_pretrained_cfg(name, pretrained)
        _check_activation(open_clip, name, pretrained, cfg)
        with one_line(f"model.pretrained: {pretrained}: the weights cannot be fetched"), quiet():
            weights = Path(open_clip.download_pretrained(cfg))
    elif pretrained == RANDOM:
        cfg, weights = {}, None
    elif file.is_file():
        cfg, weights = {}, file
    else:
        raise HvxError(
            f"model.pretrained: {shown(pretrained)} is no tag of {name}{did_you_mean(pretrained, tags)} and "
            f"no file; {_choices(name, tags)}"
        )
    return OpenClipSource(name, None, weights, _image(open_clip, vision, cfg))


def _folder(folder: Path, pretrained: str | None) -> OpenClipSource:
    open_clip = needed("open_clip")
    with one_line(f"{folder / CONFIG}: not a configuration of open_clip"):
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        vision = config["model_cfg"]["vision_cfg"]
        image = _image(open_clip, vision, config.get("preprocess_cfg") or {})
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if pretrained == RANDOM:
        weights = None
    elif pretrained is not None:
        raise HvxError(
            f"model.pretrained: {shown(pretrained)} given for {folder}, a folder with weights of its own; "
            f"leave it out, or say '{RANDOM}'"
        )
    elif weights is None:
        raise HvxError(f"{folder}: no weights; expected {' or '.join(WEIGHTS)}")
    return OpenClipSource(str(folder), folder, weights, image)


def _choices(name: str, tags: list[str]) -> str:
    return f"expected a file, '{RANDOM}', or a tag of {name}: {', '.join(tags) or 'it has none'}"


def _check_activation(open_clip: Any, name: str, tag: str, cfg: Mapping[str, Any]) -> None:
    """Refuse weights that were trained with another GELU than the model's: open_clip only warns."""
    built, trained = open_clip.get_model_config(name).get("quick_gelu", False), cfg.get("quick_gelu", False)
    if bool(built) == bool(trained):
        return
    other = f"{name}-quickgelu" if trained else name.removesuffix("-quickgelu")
    raise HvxError(
        f"model.name: the weights '{tag}' were trained with {'QuickGELU' if trained else 'GELU'}, which "
        f"{name} does not have; expected '{other}'"
    )


def _image(open_clip: Any, vision: Mapping[str, Any], cfg: Mapping[str, Any]) -> ImageConfig:
    """Open_clip's preprocessing of a photograph."""
    size = cfg.get("size") or vision.get("image_size", 224)
    side = size if isinstance(size, int) else size[0]
    if not isinstance(size, int) and len(set(size)) > 1:
        raise HvxError(f"model.name: images of {size[0]}×{size[1]}: hvx explains square ones only")
    return ImageConfig(
        size=side,
        interpolation="bilinear" if cfg.get("interpolation") == "bilinear" else "bicubic",
        mean=three(cfg.get("mean", open_clip.OPENAI_DATASET_MEAN)),
        std=three(cfg.get("std", open_clip.OPENAI_DATASET_STD)),
    )


def load(source: OpenClipSource, seed: int, device: torch.device) -> DualEncoder:
    """Build the network that was found.

    Args:
        source: see ``find``.
        seed: of random weights.
        device: where it runs.

    Raises:
        HvxError: the weights are another network's, or cannot be read safely; or neither rule is defined
            for the image tower.
    """
    open_clip = needed("open_clip")
    schema = f"local-dir:{source.folder.absolute()}" if source.folder else source.name
    with one_line(f"model.name: {source.name}: open_clip cannot build it"), quiet():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = open_clip.create_model(schema, load_weights=False, pretrained_text=False)
        tokenizer = open_clip.get_tokenizer(schema)
    if source.weights is not None:
        _load_weights(open_clip, network, source)
    network = network.eval().requires_grad_(False).to(device)
    bias = getattr(network, "logit_bias", None)
    return DualEncoder(
        name=f"open_clip {source.name}",
        network=network,
        image=source.image,
        image_tower=network.encode_image,
        text_tower=network.encode_text,
        tokenizer=_tokenizer(tokenizer),
        embeddings=_embeddings(network, source.name),
        patches=_patches(network.visual, source.name),
        scale=float(network.logit_scale.exp()),
        bias=0.0 if bias is None else float(bias),
        sigmoid=bias is not None,
    )


def _load_weights(open_clip: Any, network: nn.Module, source: OpenClipSource) -> None:
    """Load a file of weights, all of them and no others."""
    assert source.weights is not None
    state = read_tensors(source.weights)
    positions = "visual.positional_embedding"
    stored, expected = state.get(positions), network.state_dict().get(positions)
    if stored is not None and expected is not None and stored.shape[0] != expected.shape[0]:
        # open_clip would resize them silently.
        raise HvxError(
            f"{source.weights}: of a network for images of another size: {len(stored)} positions; "
            f"{source.name} has {len(expected)}{_fitting(open_clip, state)}"
        )
    try:
        open_clip.load_checkpoint(network, str(source.weights), strict=True, weights_only=True)
    except Exception:  # its own errors list every tensor
        raise HvxError(
            f"{source.weights}: not the weights of {source.name}{_mismatch(network, state)}"
            f"{_fitting(open_clip, state)}"
        ) from None
    odd = next((name for name, tensor in network.state_dict().items() if not tensor.isfinite().all()), None)
    if odd is not None:
        raise HvxError(f"{source.weights}: tensor '{odd}' holds NaN or infinity")


def _mismatch(network: nn.Module, state: Mapping[str, Tensor]) -> str:
    """The first tensor in which a file differs from a network."""
    expected = network.state_dict()
    for name, tensor in expected.items():
        if name in state and state[name].shape != tensor.shape:
            return f": '{name}' is {tuple(state[name].shape)}, expected {tuple(tensor.shape)}"
    absent = [name for name in expected if name not in state]
    if absent:
        return f": no tensor '{absent[0]}' ({len(absent)} of {len(expected)} are missing)"
    return f": it has tensors besides, such as '{next(iter(set(state) - set(expected)), '')}'"


def _fitting(open_clip: Any, state: Mapping[str, Tensor]) -> str:
    """The network that a state dict belongs to, as far as names and shapes show."""
    if any(name.startswith("vision_model.") for name in state):
        return "; it is one of Hugging Face's transformers: network: transformers reads its folder"
    if any(name.startswith("head.") for name in state) and any("encoder.table" in name for name in state):
        return "; it is a checkpoint of hvx's own networks, which `checkpoint` names"
    sizes = _sizes(state)
    fits = [
        name for name in open_clip.list_models() if _config_sizes(open_clip.get_model_config(name)) == sizes
    ]
    return f"; its sizes are those of {', '.join(fits[:4])}" if sizes and fits else ""


def _sizes(state: Mapping[str, Tensor]) -> tuple[Any, ...] | None:
    """Width, depth, patch of the image tower, widths of text tower and embedding; None for other towers."""
    projection, table = state.get("text_projection"), state.get("token_embedding.weight")
    first, stem = state.get("visual.layer1.0.conv1.weight"), state.get("visual.conv1.weight")
    if projection is None or table is None or stem is None:
        return None
    if first is not None:
        blocks = {name.split(".")[1:3][0] + "." + name.split(".")[2] for name in state
                  if name.startswith("visual.layer")}  # fmt: skip
        depth: Any = [sum(block.startswith(f"layer{n}.") for block in blocks) for n in range(1, 5)]
        return first.shape[0], depth, None, table.shape[1], projection.shape[1]
    depth = len({name.split(".")[3] for name in state if name.startswith("visual.transformer.resblocks.")})
    return stem.shape[0], depth, stem.shape[-1], table.shape[1], projection.shape[1]


def _config_sizes(config: Mapping[str, Any]) -> tuple[Any, ...] | None:
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "timm_model_name" in vision or "hf_model_name" in text:
        return None
    depth = vision.get("layers", 12)
    patch = None if isinstance(depth, list) else vision.get("patch_size", 16)
    width = vision.get("width", 64 if isinstance(depth, list) else 768)
    return width, depth, patch, text.get("width", 512), config["embed_dim"]


def _tokenizer(tokenizer: Any) -> TextTokenizer:
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is not None:  # one of transformers
        return of_transformers(inner, tokenizer)
    return TextTokenizer(
        encode=tokenizer,
        piece=lambda token_id: tokenizer.decoder[token_id],
        decode=tokenizer.decode,
        start=tokenizer.sot_token_id,
        ends=frozenset({tokenizer.eot_token_id}),
    )


def _embeddings(network: nn.Module, name: str) -> nn.Module:
    """The module that looks up token embeddings."""
    for owner in (network, getattr(network, "text", None)):
        table = getattr(owner, "token_embedding", None)
        if isinstance(table, nn.Module):
            return table
    transformer = getattr(getattr(network, "text", None), "transformer", None)
    get_embeddings = getattr(transformer, "get_input_embeddings", None)
    if get_embeddings is not None:
        return get_embeddings()
    raise HvxError(f"model.name: {name}: its text tower has no table of token embeddings")


def _patches(visual: nn.Module, name: str) -> nn.Module | None:
    """The module that returns the patch embeddings; None for a ResNet, whose ReLUs are guided."""
    trunk = getattr(visual, "trunk", visual)
    if not hasattr(visual, "attnpool") and not hasattr(visual, "layer1"):
        for candidate in (
            getattr(getattr(trunk, "patch_embed", None), "proj", None),  # a ViT of timm
            getattr(trunk, "stem", None),  # ConvNeXt
            getattr(trunk, "conv1", None) if hasattr(trunk, "transformer") else None,  # open_clip's own ViT
        ):
            if isinstance(candidate, nn.Module):
                return candidate
    if any(isinstance(module, nn.ReLU) for module in trunk.modules()):
        return None
    raise HvxError(
        f"model.name: {name}: its image tower ({type(trunk).__name__}) has neither ReLUs, which guided "
        "backpropagation is for, nor patch embeddings"
    )
