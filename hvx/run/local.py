"""A run on one machine: the shards that are absent, one after the other, then the view over all."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import torch
import torchvision

from hvx import __version__
from hvx.config import Config, ExplainConfig, SplitConfig
from hvx.data.images import crop_rule, image_path
from hvx.data.questions import read_questions
from hvx.errors import HvxError
from hvx.explain.explainer import Explainer
from hvx.files import read_json, sha256, whole_file, write_json
from hvx.models.checkpoint import check_config, load_checkpoint
from hvx.progress import bar
from hvx.run.plan import Shard, plan_shards
from hvx.run.worker import explain_shard
from hvx.store.reader import RunReader
from hvx.store.writer import write_view


@dataclass(frozen=True)
class Summary:
    """What a run holds: questions explained and failed, shards done now and before, seconds taken."""

    run: Path
    explained: int
    failed: int
    done_now: int
    done_before: int
    seconds: float


def explain_split(config: Config, device: torch.device) -> Summary:
    """Explain the split that the config names, continuing its run folder where one exists.

    Everything that can be refused is refused before the folder is made.

    Raises:
        HvxError: a file is missing or wrong, or the folder holds a run of something else.
        BadImage: an image cannot be read, and the config says to stop on that.
    """
    started = time.time()
    if config.explain is None:
        raise HvxError("config: key 'explain' is missing; it names the run folder (explain.run)")
    explain = config.explain
    split = config.split(explain.split)
    shards = plan_shards(read_questions(split), explain.shard_questions)
    if explain.on_error == "stop":
        _check_images(split, shards)
    checkpoint, run = config.path(config.checkpoint), config.path(explain.run)
    model = load_checkpoint(checkpoint, device)
    check_config(model, config, checkpoint)
    explainer = Explainer(model, explain.gradient)
    about = _describe(config, explain, split, checkpoint, device, model.config.image.model_dump(mode="json"))
    _open_run(run, about)
    missing = [shard for shard in shards if not (run / "shards" / shard.name).exists()]
    for shard in bar(missing, "explaining", "shard"):
        explain_shard(explainer, split, explain, shard, run / "shards" / shard.name)
    if missing or not (run / "explanations.h5").exists():
        failed = _finish(run, shards, {"crop": crop_rule(model.config.image)}, started)
    else:
        failed = len(_failures(run, shards))
    total = sum(map(len, shards))
    return Summary(
        run, total - failed, failed, len(missing), len(shards) - len(missing), time.time() - started
    )


def _check_images(split: SplitConfig, shards: list[Shard]) -> None:
    """Count the images that are not there before any work is done."""
    if not split.images.is_dir():
        raise HvxError(f"{split.images}: no such folder of images")
    image_ids = [image_id for shard in shards for image_id, _ in shard.images]
    missing = [path for path in (image_path(split, image_id) for image_id in image_ids) if not path.is_file()]
    if missing:
        raise HvxError(
            f"{missing[0]}: no such image ({len(missing)} of the split's {len(image_ids)} images are missing;"
            " --on-error skip explains the others)"
        )


def _describe(
    config: Config,
    explain: ExplainConfig,
    split: SplitConfig,
    checkpoint: Path,
    device: torch.device,
    image: dict[str, Any],
) -> dict[str, Any]:
    """What run.json says. Under ``identity``: all that decides what the run's items are."""
    return {
        "identity": {
            "checkpoint_sha256": sha256(checkpoint),
            "questions_sha256": sha256(split.questions),
            "annotations_sha256": sha256(split.annotations) if split.annotations else None,
            "image_name": split.image_name,
            "limit": split.limit,
            "gradient": explain.gradient,
            "shard_questions": explain.shard_questions,
        },
        "image": image,
        "images": str(split.images.resolve()),
        "config": config.model_dump(mode="json"),
        "versions": {
            "hvx": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "h5py": h5py.__version__,
        },
        "device": str(device) if device.type == "cpu" else f"{device} ({torch.cuda.get_device_name(device)})",
        "seed": config.seed,
        "started": _now(),
        "finished": None,
    }


def _open_run(run: Path, about: dict[str, Any]) -> None:
    """Make the run folder, or make sure that the one there is of the same run."""
    path = run / "run.json"
    if not path.exists():
        if run.exists() and (not run.is_dir() or any(run.iterdir())):
            raise HvxError(f"{run}: not empty and not a run; give explain.run a new folder")
        write_json(path, about, indent=1)
    before = read_json(path, "a run folder's description").get("identity", {})
    for key, value in about["identity"].items():
        if before.get(key) != value:
            raise HvxError(
                f"{run}: holds a run with another {key} ({before.get(key)!r:.20}, now {value!r:.20}); "
                "give explain.run a new folder, or delete this one"
            )
    (run / "shards").mkdir(exist_ok=True)


def _finish(run: Path, shards: list[Shard], attributes: dict[str, Any], started: float) -> int:
    """Write what stands beside the shards: failures, view, results. Returns the failures' count."""
    failures = _failures(run, shards)
    with whole_file(run / "failures.jsonl") as part:
        part.write_text("".join(json.dumps(failure, ensure_ascii=False) + "\n" for failure in failures))
    write_view(run / "explanations.h5", [run / "shards" / shard.name for shard in shards], attributes)
    reader = RunReader(run)
    answers = zip(reader.column("question_id").tolist(), reader.column("answer").tolist(), strict=True)
    write_json(run / "results.json", [{"question_id": q, "answer": a} for q, a in answers])
    reader.close()
    about = read_json(run / "run.json", "a run folder's description")
    write_json(
        run / "run.json", about | {"finished": _now(), "seconds": round(time.time() - started, 2)}, indent=1
    )
    return len(failures)


def _failures(run: Path, shards: list[Shard]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for shard in shards:
        path = run / "shards" / shard.name
        try:
            with h5py.File(path, "r") as file:
                found += json.loads(file.attrs["failures"])
        except (OSError, KeyError, ValueError) as error:
            raise HvxError(
                f"{path}: damaged shard ({error}); delete it and run `hvx explain` again"
            ) from None
    return found


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
