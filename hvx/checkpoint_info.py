"""Describes a checkpoint in a few lines, from its header, without PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

from hvx.config import EncoderConfig, ModelConfig
from hvx.models.header import CheckpointHeader, read_header

_SHOWN = 12


def checkpoint_facts(path: Path) -> dict[str, Any]:
    """The properties as plain values for programs; see ``hvx.info.facts``.

    Raises:
        HvxError: the path is no native checkpoint.
    """
    header = read_header(path)
    return {
        "checkpoint": str(path),
        "model": header.config.model_dump(mode="json"),
        "words": len(header.words),
        "answers": len(header.answers),
        "parameters": _count(header, "head."),
        "training": header.training,
    }


def describe_checkpoint(path: Path) -> dict[str, str]:
    """The main properties, name → value; see ``hvx.info.describe``.

    Raises:
        HvxError: the path is no native checkpoint.
    """
    header = read_header(path)
    config, encoder = header.config, header.config.encoder
    size = f"{config.image.size}×{config.image.size}"
    integration = "" if encoder.integration == "additive" else f", {encoder.integration} integration"
    return {
        "checkpoint": str(path),
        **_NETWORKS[config.network](config),
        "question": f"{encoder.tokenizer} tokens{_limits(encoder)}, embeddings {encoder.embedding}, "
        f"GRU {encoder.hidden} ({encoder.candidate}{integration})",
        "backbone": f"{config.backbone.architecture} at {config.backbone.node}, {_source(header)}",
        "image": f"{size}, {config.image.interpolation}",
        "words": f"{len(header.words):,}: {_first_few(header.words)}",
        "answers": f"{len(header.answers):,}: {_first_few(header.answers)}",
        "parameters": f"{_count(header, 'head.'):,} in the head",
        "training": ", ".join(f"{name} {value}" for name, value in header.training.items()) or "not noted",
    }


def _limits(encoder: EncoderConfig) -> str:
    """How a question's tokens are limited."""
    cut = f", the first {encoder.max_tokens}" if encoder.max_tokens else ""
    return (" of each sentence" if encoder.sentences else "") + cut


def _glimpses(config: ModelConfig) -> str:
    return f"{config.glimpses} glimpses" if config.glimpses else "no attention"


def _mlb(config: ModelConfig) -> dict[str, str]:
    joint = f"V {config.visual_activation}, Q {config.textual_activation}, F {config.product_activation}"
    attention = (
        config.attention_visual_activation,
        config.attention_textual_activation,
        config.attention_product_activation,
    )
    return {
        "model": f"MLB, form {config.form}, {_glimpses(config)}, joint {config.width} wide",
        "activations": joint + (f"; in the attention {', '.join(attention)}" if config.glimpses else ""),
    }


def _mrn(config: ModelConfig) -> dict[str, str]:
    mrn = config.mrn
    blocks = f"{mrn.blocks} block{'s' if mrn.blocks > 1 else ''}" + (
        "" if mrn.shortcuts else ", no shortcuts"
    )
    pool = {"mean": "mean of the features", "max": "maximum of tanh(W1 ·)"}[mrn.pool]
    length = ", of unit length" if mrn.unit_length else ""
    return {"model": f"MRN, {blocks}, joint {config.joint} wide, {pool} over the grid{length}"}


def _mutan(config: ModelConfig) -> dict[str, str]:
    return {
        "model": f"MUTAN, {_glimpses(config)}, sum of {config.mutan.rank} products, each {config.joint} wide"
    }


def _gated(config: ModelConfig) -> dict[str, str]:
    return {"model": f"gated tanh (Teney et al. 2017), 1 glimpse, joint {config.joint} wide"}


def _dan(config: ModelConfig) -> dict[str, str]:
    widths = f"attentions {config.joint} wide, joint {config.encoder.hidden} wide"
    return {"model": f"r-DAN, {config.dan.steps} steps, {widths}"}


def _mcb(config: ModelConfig) -> dict[str, str]:
    return {"model": f"MCB, {_glimpses(config)}, product of spectra, count sketches {config.joint} wide"}


def _mi(config: ModelConfig) -> dict[str, str]:
    initial_state = {"mean": "mean of the features", "max": "maximum of tanh(W1 ·)"}[config.mi.pool]
    attention = f", attention in every step, {config.joint} wide" if config.mi.attention else ""
    return {
        "model": f"multiplicative integration (Wu et al. 2016), a product for each word, state "
        f"{config.encoder.hidden} wide from the {initial_state} over the grid{attention}"
    }


def _hiecoatt(config: ModelConfig) -> dict[str, str]:
    widths = f"{config.encoder.hidden} wide, attentions {config.joint} wide"
    return {"model": f"hierarchical co-attention (Lu et al. 2016), parallel, {widths}; no Hadamard product"}


_NETWORKS: dict[str, Callable[[ModelConfig], dict[str, str]]] = {
    "mlb": _mlb,
    "mrn": _mrn,
    "mutan": _mutan,
    "mcb": _mcb,
    "gated": _gated,
    "dan": _dan,
    "mi": _mi,
    "hiecoatt": _hiecoatt,
}
"""Network → description of its head. Needs no PyTorch, unlike the networks themselves."""


def _source(header: CheckpointHeader) -> str:
    """Where the backbone's weights come from."""
    if header.carries_backbone:
        return f"weights in the file ({_count(header, 'backbone.'):,} values)"
    weights = header.config.backbone.weights
    return f"torchvision's {weights}" if weights else "weights missing"


def _count(header: CheckpointHeader, prefix: str) -> int:
    return sum(prod(shape) for name, shape in header.shapes.items() if name.startswith(prefix))


def _first_few(items: list[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (", …" if len(items) > _SHOWN else "")
