"""Describes a run folder in a few lines, or lets ``checkpoint_info`` describe a checkpoint.

Commands without PyTorch answer at once, so that what only one of the two needs is imported for it alone.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvx.errors import HvxError

if TYPE_CHECKING:
    from hvx.store.reader import RunReader

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
    from hvx.checkpoint_info import describe_checkpoint

    return describe_checkpoint(path)


def facts(path: Path) -> dict[str, Any]:
    """The properties as plain values for programs; docs/cli.md lists the keys.

    Raises:
        HvxError: the path is neither a run folder nor a native checkpoint.
    """
    if path.is_dir():
        return _facts_of_run(path)
    if not path.exists():
        raise HvxError(f"{path}: no such run folder or checkpoint")
    from hvx.checkpoint_info import checkpoint_facts

    return checkpoint_facts(path)


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

    with RunReader(path) as reader:
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
