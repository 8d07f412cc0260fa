"""What a path holds, in a few lines."""

from __future__ import annotations

from pathlib import Path

from hvx.errors import HvxError
from hvx.models.checkpoint import load_checkpoint
from hvx.store.reader import RunReader

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
    about = reader.about
    return {
        "run": str(path),
        "explanations": f"{len(reader):,}",
        "heat maps": "×".join(map(str, reader.heatmap_size)),
        "images": str(about["images"]),
        "finished": f"{about['finished']} in {about.get('seconds')} s on {about['device']}",
        "checkpoint": f"sha256 {about['identity']['checkpoint_sha256']}",
    }


def _describe_checkpoint(path: Path) -> dict[str, str]:
    model = load_checkpoint(path)
    config, encoder, head = model.config, model.config.encoder, model.head
    source = config.backbone.weights or "in the file"
    return {
        "checkpoint": str(path),
        "model": f"MLB, form {config.form}, {config.glimpses} glimpses, joint {config.joint} per glimpse",
        "question": f"{encoder.tokenizer} tokens, embeddings {encoder.embedding}, GRU {encoder.hidden}",
        "backbone": f"{config.backbone.architecture} at {config.backbone.node}, weights {source}",
        "image": f"{config.image.size}×{config.image.size}",
        "words": f"{len(model.vocabulary):,}: {_some(list(model.vocabulary.words))}",
        "answers": f"{len(model.answers):,}: {_some(model.answers)}",
        "parameters": f"{sum(p.numel() for p in head.parameters()):,} in the head",
        "training": ", ".join(f"{name} {value}" for name, value in model.training.items()),
    }


def _some(items: list[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (", …" if len(items) > _SHOWN else "")
