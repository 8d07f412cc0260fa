"""Folders of small dual encoders with random weights, as open_clip and transformers read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hvx.adapters.dual import open_clip_model

open_clip = pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")

TEXT = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
VIT = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16}
CONVNEXT = {"timm_model_name": "convnext_atto", "timm_pool": "", "timm_proj": "linear", "image_size": 64}
TIMM_VIT = {
    "timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "timm_proj": "linear", "image_size": 224,
}  # fmt: skip


def folder_of(path: Path, vision: dict[str, Any], seed: int = 0, **more: Any) -> Path:
    """A folder as open_clip reads it, with random weights."""
    path.mkdir()
    model = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": TEXT, **more}
    (path / open_clip_model.CONFIG).write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {}}))
    torch.manual_seed(seed)
    network = open_clip.create_model(f"local-dir:{path.absolute()}", load_weights=False)
    torch.save(network.state_dict(), path / "open_clip_pytorch_model.bin")
    return path


def vocabulary(folder: Path) -> Any:
    """A tokenizer of CLIP's kind that knows a few pieces."""
    letters = "abcdefghijklmnopqrstuvwxyz'"
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    merges = [("s", "t"), ("a", "r</w>"), ("st", "ar</w>"), ("r", "e"), ("re", "d</w>")]
    pieces += ["".join(merge) for merge in merges]
    return transformers.CLIPTokenizer(vocab={piece: n for n, piece in enumerate(pieces)}, merges=merges)


def clip_folder(path: Path) -> Path:
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config=tower | {
            "max_position_embeddings": 24, "vocab_size": 80, "bos_token_id": 0, "eos_token_id": 1,
        },
        vision_config=tower | {"image_size": 32, "patch_size": 8}, projection_dim=16,
    )  # fmt: skip
    return _written(path, config, transformers.CLIPModel, vocabulary(path))


def _written(path: Path, config: Any, kind: Any, tokenizer: Any) -> Path:
    torch.manual_seed(0)
    network = kind(config)
    with torch.no_grad():  # its own are so small that all texts are alike
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    network.save_pretrained(path)
    tokenizer.save_pretrained(path)
    transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(path)
    return path


def siglip_folder(path: Path) -> Path:
    """SigLIP with CLIP's kind of tokenizer: its own needs a SentencePiece model."""
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.SiglipConfig(
        text_config=tower | {"max_position_embeddings": 24, "vocab_size": 80, "projection_size": 32},
        vision_config=tower | {"image_size": 32, "patch_size": 8},
    )
    return _written(path, config, transformers.SiglipModel, vocabulary(path))
