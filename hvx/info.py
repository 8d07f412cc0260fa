"""Describes a run folder or a checkpoint in a few lines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvx.config import EncoderConfig, ModelConfig
from hvx.errors import HvxError
from hvx.models.header import CheckpointHeader, read_header

if TYPE_CHECKING:
    from hvx.store.reader import RunReader

_SHOWN = 12
_NO_MAPS = "none, and no z-scores: the network has no Hadamard product"


def describe(path: Path) -> dict[str, str]:
    """The main properties of a run folder or a native checkpoint, name → value.

    Raises:
        HvxError: the path is neither.
    """
    if path.is_dir():
        return _describe_run(path)
    if not path.exists():
        raise HvxError(f"{path}: no such run folder or checkpoint")
    return _describe_checkpoint(path)


def facts(path: Path) -> dict[str, Any]:
    """The properties as plain values for programs; docs/cli.md lists the keys.

    Raises:
        HvxError: the path is neither a run folder nor a native checkpoint.
    """
    if path.is_dir():
        return _facts_of_run(path)
    if not path.exists():
        raise HvxError(f"{path}: no such run folder or checkpoint")
    header = read_header(path)
    return {
        "checkpoint": str(path),
        "model": header.config.model_dump(mode="json"),
        "words": len(header.words),
        "answers": len(header.answers),
        "parameters": _count(header, "head."),
        "training": header.training,
    }


def _facts_of_run(path: Path) -> dict[str, Any]:
    import numpy as np

    from hvx.store.reader import RunReader  # slow import (h5py)
    from hvx.store.schema import ZERO_IMAGE_GRADIENT, ZERO_WORD_GRADIENT

    with RunReader(path) as reader:
        unknown, about = reader.column("unknown"), reader.about
        bits = reader.column("zero_gradient") if reader.has_heatmaps else np.zeros(0, np.uint8)
        return {
            "run": str(path),
            "explanations": len(reader),
            "zero_image_gradients": int(((bits & ZERO_IMAGE_GRADIENT) > 0).sum()),
            "zero_word_gradients": int(((bits & ZERO_WORD_GRADIENT) > 0).sum()),
            "tokens": int(reader.column("length").sum()),
            "unknown_tokens": int((unknown != 0).sum()),
            "heatmap_size": list(reader.heatmap_size) if reader.has_heatmaps else None,
            "glimpses": reader.glimpses,
            "blocks": reader.blocks,
            "images": [str(folder) for folder in reader.image_folders],
            **{
                key: about.get(key) for key in ("finished", "seconds", "device", "versions", "later_versions")
            },
            "identity": about["identity"],
        }


def _describe_run(path: Path) -> dict[str, str]:
    from hvx.store.reader import RunReader

    reader = RunReader(path)
    about: dict[str, Any] = defaultdict(lambda: "not said", reader.about)
    return {
        "run": str(path),
        "explanations": f"{len(reader):,}",
        **({"no gradient": _zero_gradients(reader)} if reader.has_heatmaps else {}),
        "unknown": _unknown(reader),
        "heat maps": "×".join(map(str, reader.heatmap_size)) if reader.has_heatmaps else _NO_MAPS,
        "images": ", ".join(map(str, reader.image_folders)),
        "finished": f"{about['finished']} in {about['seconds']} s on {about['device']}",
        **_model_of(about["identity"]),
        "computed by": _computed_by(reader.about),
    }


def _model_of(identity: dict[str, Any]) -> dict[str, str]:
    """The model that explained a run."""
    if "model_file" in identity:
        name = f"{identity['model_file']}:{identity.get('model_function')}"
        code, weights = (identity.get(f"model_{part}_sha256", "not said") for part in ("code", "weights"))
        return {"own module": f"{name}, code sha256 {code}", "weights": f"sha256 {weights}"}
    if "weights" not in identity:
        return {"checkpoint": f"sha256 {identity.get('checkpoint_sha256', 'not said')}"}
    weights = [f"{name} sha256 {digest}" for name, digest in identity["weights"].items()]
    return {
        "dual encoder": f"{identity.get('network')} {identity.get('name')}, "
        f"cotangent {identity.get('cotangent')}",
        "weights": "; ".join(weights) or f"random, seed {identity.get('random_seed')}",
    }


def _zero_gradients(reader: RunReader) -> str:
    """The number of explanations with a zero gradient of the image, or of the words."""
    from hvx.store.schema import ZERO_IMAGE_GRADIENT, ZERO_WORD_GRADIENT

    bits = reader.column("zero_gradient")
    image, words = (int(((bits & bit) > 0).sum()) for bit in (ZERO_IMAGE_GRADIENT, ZERO_WORD_GRADIENT))
    return f"Eq. 2 (image) of {image:,}, Eq. 3 (words) of {words:,}"


def _unknown(reader: RunReader) -> str:
    """The number of out-of-vocabulary tokens, and of questions with such tokens."""
    unknown, lengths = reader.column("unknown") != 0, reader.column("length")
    share = f"{int(unknown.sum()):,} of {int(lengths.sum()):,} tokens"
    return f"{share}, in {int(unknown.any(1).sum()):,} questions"


def _computed_by(about: dict[str, Any]) -> str:
    """The versions of hvx and PyTorch that computed a run's shards; several for a resumed run."""
    later_versions = about.get("later_versions", [])
    all_versions = [about.get("versions"), *(later_versions if isinstance(later_versions, list) else [])]
    known = [versions for versions in all_versions if isinstance(versions, dict)]
    return "; then ".join(f"hvx {v.get('hvx')}, torch {v.get('torch')}" for v in known) or "not said"


def _describe_checkpoint(path: Path) -> dict[str, str]:
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
