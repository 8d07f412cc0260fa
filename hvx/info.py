"""What a path holds, in a few lines."""

from __future__ import annotations

from collections import defaultdict
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvx.errors import HvxError
from hvx.store.reader import RunReader

if TYPE_CHECKING:
    from hvx.models.checkpoint import CheckpointHeader

_SHOWN = 12


def describe(path: Path) -> dict[str, str]:
    """Name → value of what is worth knowing of a run folder or a native checkpoint.

    Raises:
        HvxError: the path is neither.
    """
    if path.is_dir():
        return _describe_run(path)
    if not path.exists():
        raise HvxError(f"{path}: no such run folder or checkpoint")
    return _describe_checkpoint(path)


def _describe_run(path: Path) -> dict[str, str]:
    reader = RunReader(path)
    about: dict[str, Any] = defaultdict(lambda: "not said", reader.about)
    return {
        "run": str(path),
        "explanations": f"{len(reader):,}",
        "heat maps": "×".join(map(str, reader.heatmap_size)),
        "images": str(about["images"]),
        "finished": f"{about['finished']} in {about['seconds']} s on {about['device']}",
        "checkpoint": f"sha256 {about['identity'].get('checkpoint_sha256', 'not said')}",
        "computed by": _computed_by(reader.about),
    }


def _computed_by(about: dict[str, Any]) -> str:
    """The versions of hvx and PyTorch that computed a run's shards; of a resumed run, all of them."""
    later = about.get("later_versions", [])
    all_of_them = [about.get("versions"), *(later if isinstance(later, list) else [])]
    known = [versions for versions in all_of_them if isinstance(versions, dict)]
    return "; then ".join(f"hvx {v.get('hvx')}, torch {v.get('torch')}" for v in known) or "not said"


def _describe_checkpoint(path: Path) -> dict[str, str]:
    from hvx.models.checkpoint import read_header  # imports PyTorch, which takes seconds
    from hvx.models.networks import NETWORKS

    header = read_header(path)
    config, encoder = header.config, header.config.encoder
    size = f"{config.image.size}×{config.image.size}"
    return {
        "checkpoint": str(path),
        **NETWORKS[config.network].describe(config),
        "question": f"{encoder.tokenizer} tokens, embeddings {encoder.embedding}, GRU {encoder.hidden} "
        f"({encoder.candidate})",
        "backbone": f"{config.backbone.architecture} at {config.backbone.node}, {_source(header)}",
        "image": f"{size}, {config.image.interpolation}",
        "words": f"{len(header.words):,}: {_some(header.words)}",
        "answers": f"{len(header.answers):,}: {_some(header.answers)}",
        "parameters": f"{_count(header, 'head.'):,} in the head",
        "training": ", ".join(f"{name} {value}" for name, value in header.training.items()) or "not noted",
    }


def _source(header: CheckpointHeader) -> str:
    """Where the backbone's weights come from."""
    if header.carries_backbone:
        return f"weights in the file ({_count(header, 'backbone.'):,} values)"
    weights = header.config.backbone.weights
    return f"torchvision's {weights}" if weights else "weights missing"


def _count(header: CheckpointHeader, prefix: str) -> int:
    return sum(prod(shape) for name, shape in header.shapes.items() if name.startswith(prefix))


def _some(items: list[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (", …" if len(items) > _SHOWN else "")
