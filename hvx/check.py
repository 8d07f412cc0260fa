"""Reads everything that ``hvx explain`` would read; says what is missing, how long it takes, how large it is.

Nothing is written. Every part is checked, also where an earlier one has a problem.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hvx.config import Config, ExplainConfig, SplitConfig
from hvx.data.image_files import folders_shown, image_path, missing_images, some_names
from hvx.data.images import input_batches
from hvx.data.parquet import is_extracted
from hvx.data.photos import photo_size
from hvx.data.pick import Picked, pick_questions
from hvx.data.questions import Question, in_parquet, read_questions
from hvx.data.words import tokenizer
from hvx.errors import BadImage, HvxError
from hvx.models.checkpoint import check_config
from hvx.models.header import CheckpointHeader, read_header
from hvx.progress import bar
from hvx.run.explain import data_digests, identity_values
from hvx.run.folder import absent_shards, check_same_run
from hvx.run.plan import Shard, plan_shards
from hvx.run.size import check_map_size, check_room, free_bytes
from hvx.run.source import CheckpointSource, Source

_TIMED_IMAGES = 4
"""That are explained to estimate the time; once before, so that what happens only at first is not timed."""


@dataclass
class CheckResult:
    """What a check found.

    Attributes:
        facts: part (``questions``, ``images``, …) → name → what was found there; plain values.
        problems: why ``hvx explain`` would refuse the config; empty if it would begin.
        failures: why some questions could not be explained; they would be listed in failures.jsonl.
        notes: what ``hvx explain`` would say and go on.
    """

    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_run(
    config: Config, device: torch.device, timing: bool = True, source: Source | None = None
) -> CheckResult:
    """Check what a config asks for.

    Args:
        config: the whole tree.
        device: where the network would run.
        timing: whether to load the network and explain a few images, for the expected time.
        source: what explains; None: the checkpoint that the config names.

    Raises:
        HvxError: the config has no ``explain``, or names no such split.
    """
    if config.explain is None:
        raise HvxError("config: key 'explain' is missing; it names the run folder (explain.run)")
    split, explain, found = config.split(config.explain.split), config.explain, CheckResult()
    questions: list[Question] = []
    picked: Picked | None = None
    with _part(found):
        questions, picked = _check_questions(split, explain, found)
    shards = plan_shards(questions, explain.shard_questions)
    with _part(found):
        _check_images(split, explain, shards, found)
    model = None
    with _part(found):
        if source is None:
            _check_checkpoint(config, questions, found)
            found.notes += CheckpointSource(config).notes()
        else:
            found.facts["model"] = source.facts()
            found.notes += source.notes()
        model = source or CheckpointSource(config)
    if model:
        with _part(found):
            _check_size(config, explain, shards, model, found)
        if questions:
            with _part(found):
                identity = identity_values(model, explain, split, data_digests(split), picked)
                check_same_run(config.path(explain.run), identity)
    if timing and model and not found.problems:
        with _part(found):
            _check_time(config, split, explain, shards, model, device, found)
    return found


@contextmanager
def _part(found: CheckResult) -> Iterator[None]:
    """A part's error is noted, and the next part checked."""
    try:
        yield
    except HvxError as error:
        found.problems.append(str(error))


def _check_questions(
    split: SplitConfig, explain: ExplainConfig, found: CheckResult
) -> tuple[list[Question], Picked | None]:
    questions, picked = read_questions(split, found.notes.append, extract=False), None
    if explain.pick:
        picked = pick_questions(questions, explain.pick, split.questions)
        found.notes += picked.ambiguities()
        questions = picked.questions
    truths = sum(bool(question.ground_truth) for question in questions)
    found.facts["questions"] = {
        "file": str(split.questions),
        "count": len(questions),
        "images": len({question.image_id for question in questions}),
        "with ground truth": truths,
        "first": questions[0].question,
    }
    return questions, picked


def _check_images(
    split: SplitConfig, explain: ExplainConfig, shards: list[Shard], found: CheckResult
) -> None:
    # An image with very many questions occurs several times in the plan.
    names = list(dict.fromkeys(own[0].image for shard in shards for _, own in shard.images))
    paths = [image_path(split, name) for name in names]
    made_later = in_parquet(split) and not split.folders[0].is_dir()
    missing = set(paths if made_later else missing_images(split, names))
    inside = {path for path in missing if in_parquet(split) and is_extracted(path.name)}
    missing -= inside
    unreadable: set[Path] = set()
    sizes = set()
    for path in bar(paths, "reading image headers", "image"):
        if path in missing or path in inside:
            continue
        try:
            sizes.add(photo_size(path))
        except BadImage:
            unreadable.add(path)
    found.facts["images"] = {
        "folder": folders_shown(split),
        "found": len(paths) - len(missing) - len(unreadable) - len(inside),
        "missing": len(missing),
        "unreadable": len(unreadable),
        "smallest": min(sizes, default=None),
        "largest": max(sizes, default=None),
    }
    if inside:
        found.facts["images"]["inside the Parquet file"] = len(inside)
        found.notes.append(
            f"{split.questions}: {len(inside):,} images inside it; hvx explain writes them out"
        )
    lacking = [path for path in paths if path in missing or path in unreadable]
    if not lacking:
        return
    counts = f"{len(missing):,} images missing, {len(unreadable):,} unreadable"
    line = f"{folders_shown(split)}: {counts}: {some_names(lacking)}"
    refused = explain.on_error == "stop" or len(lacking) == len(paths)
    (found.problems if refused else found.failures).append(line)


def _check_checkpoint(config: Config, questions: list[Question], found: CheckResult) -> CheckpointHeader:
    path = config.path(config.checkpoint)
    header = read_header(path)
    check_config(header.config, config, path)
    assert config.explain is not None
    check_map_size(header.config, config.explain, path)
    tokenize, words = tokenizer(header.config.encoder), set(header.words)
    tokens = [token for question in questions for token in tokenize(question.question)]
    truths = [question.ground_truth for question in questions if question.ground_truth]
    answers = set(header.answers)
    found.facts["checkpoint"] = {
        "file": str(path),
        "network": header.config.network,
        "image size": header.config.image.size,
        "answers": len(answers),
        "unknown tokens": _share(token not in words for token in tokens),
        "ground truths among its answers": _share(truth in answers for truth in truths),
    }
    return header


def _share(flags: Iterator[bool]) -> float | None:
    """Of flags that are set; None if there are none."""
    known = list(flags)
    return round(sum(known) / len(known), 4) if known else None


def _check_size(
    config: Config, explain: ExplainConfig, shards: list[Shard], model: Source, found: CheckResult
) -> None:
    run, each = config.path(explain.run), model.item_bytes()
    done = len(shards) - len(absent_shards(run, shards))
    side = explain.heatmap.size or model.image.size
    maps = f"{side}×{side} {explain.heatmap.dtype}" if _has_product(model) else "none"
    found.facts["run"] = {
        "folder": str(run),
        "shards": len(shards),
        "shards there": done,
        "heat maps": maps,
        "bytes": each * sum(map(len, shards)),
        "free bytes": free_bytes(run),
    }
    check_room(run, shards, each, pack=False, say=lambda line: None)


def _has_product(source: Source) -> bool:
    """Whether what is explained joins by a Hadamard product, as only a checkpoint may not."""
    return not isinstance(source, CheckpointSource) or source.has_product


def _check_time(
    config: Config,
    split: SplitConfig,
    explain: ExplainConfig,
    shards: list[Shard],
    source: Source,
    device: torch.device,
    found: CheckResult,
) -> None:
    """Explain the first images twice, decoding included, and project the second time to the shards to do."""
    run = config.path(explain.run)
    todo = absent_shards(run, shards)
    facts: dict[str, Any] = {"device": str(device)}
    found.facts["time"] = facts
    if not todo:
        facts["seconds"] = 0
        return
    images = todo[0].images[: explain.batch_images or _TIMED_IMAGES]
    paths = [image_path(split, own[0].image) for _, own in images]
    if in_parquet(split) and not all(path.is_file() for path in paths):
        found.notes.append(f"{split.questions}: no time is measured while its images are inside it")
        facts["seconds"] = None
        return
    explainer, image = source.load(device), source.image
    asked = [(place, question.question) for place, (_, own) in enumerate(images) for question in own]
    taken = 0.0
    for _ in range(2):
        started = time.perf_counter()
        turned = split.exif_orientation
        batch = next(iter(input_batches(paths, image, [list(range(len(paths)))], 0, turned)))
        rank = {place: row for row, place in enumerate(batch.places)}
        own = [(rank[place], question) for place, question in asked if place in rank]
        if not own:
            raise HvxError(next(iter(batch.failures.values())))
        explainer.explain(batch.inputs, [image for image, _ in own], [question for _, question in own])
        taken = time.perf_counter() - started
    rate = len(own) / taken
    facts["explanations per second"] = round(rate, 2)
    facts["seconds"] = round(sum(map(len, todo)) / rate)
