"""Reads everything that ``hvx explain`` would read; reports what is missing, the expected time and size.

Nothing is written. Every part is checked, also if an earlier one has a problem.
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
from hvx.data.find_questions import SelectedQuestions, find_questions
from hvx.data.image_files import folders_shown, image_path, missing_images, some_names
from hvx.data.images import input_batches
from hvx.data.parquet import is_extracted
from hvx.data.photos import photo_size
from hvx.data.questions import Question, in_parquet, read_questions
from hvx.data.tokenize import tokenizer
from hvx.errors import BadImage, HvxError
from hvx.models.checkpoint import check_config
from hvx.models.header import CheckpointHeader, read_header
from hvx.progress import bar
from hvx.run.explain import data_digests, identity_values
from hvx.run.run_directory import absent_shards, check_same_run
from hvx.run.shards import Shard, plan_shards
from hvx.run.size import check_map_size, check_room, free_bytes
from hvx.run.source import CheckpointSource, Source

_TIMED_IMAGES = 4
"""Images explained to estimate the time, after one warm-up run that is not timed."""


@dataclass
class CheckResult:
    """The result of a check.

    Attributes:
        facts: part (``questions``, ``images``, …) → name → plain value.
        problems: why ``hvx explain`` would refuse the config; empty if it would start.
        failures: why some questions could not be explained; they would be listed in failures.jsonl.
        notes: messages that do not stop ``hvx explain``.
    """

    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_run(
    config: Config, device: torch.device, timing: bool = True, source: Source | None = None
) -> CheckResult:
    """Check everything that a config needs.

    Args:
        config: the whole config.
        device: where the network would run.
        timing: whether to load the network and explain a few images, for the expected time.
        source: the model to explain; the config's checkpoint if None.

    Raises:
        HvxError: the config has no ``explain``, or names an unknown split.
    """
    if config.explain is None:
        raise HvxError("config: key 'explain' is missing; it names the run folder (explain.run)")
    split, explain, result = config.split(config.explain.split), config.explain, CheckResult()
    questions: list[Question] = []
    picked: SelectedQuestions | None = None
    with _collect_problems(result):
        questions, picked = _check_questions(split, explain, result)
    shards = plan_shards(questions, explain.shard_questions)
    with _collect_problems(result):
        _check_images(split, explain, shards, result)
    model = None
    with _collect_problems(result):
        if source is None:
            _check_checkpoint(config, questions, result)
            result.notes += CheckpointSource(config).notes()
        else:
            result.facts["model"] = source.facts()
            result.notes += source.notes()
        model = source or CheckpointSource(config)
    if model:
        with _collect_problems(result):
            _check_size(config, explain, shards, model, result)
        if questions:
            with _collect_problems(result):
                identity = identity_values(model, explain, split, data_digests(split), picked)
                check_same_run(config.path(explain.run), identity)
    if timing and model and not result.problems:
        with _collect_problems(result):
            _check_time(config, split, explain, shards, model, device, result)
    return result


@contextmanager
def _collect_problems(result: CheckResult) -> Iterator[None]:
    """Record an ``HvxError`` as a problem and go on."""
    try:
        yield
    except HvxError as error:
        result.problems.append(str(error))


def _check_questions(
    split: SplitConfig, explain: ExplainConfig, result: CheckResult
) -> tuple[list[Question], SelectedQuestions | None]:
    questions, picked = read_questions(split, result.notes.append, extract=False), None
    if explain.pick:
        picked = find_questions(questions, explain.pick, split.questions)
        result.notes += picked.ambiguities()
        questions = picked.questions
    truths = sum(bool(question.ground_truth) for question in questions)
    result.facts["questions"] = {
        "file": str(split.questions),
        "count": len(questions),
        "images": len({question.image_id for question in questions}),
        "with ground truth": truths,
        "first": questions[0].question,
    }
    return questions, picked


def _check_images(
    split: SplitConfig, explain: ExplainConfig, shards: list[Shard], result: CheckResult
) -> None:
    # An image with very many questions occurs in several shards.
    names = list(dict.fromkeys(questions[0].image for shard in shards for _, questions in shard.images))
    paths = [image_path(split, name) for name in names]
    not_extracted = in_parquet(split) and not split.folders[0].is_dir()
    missing = set(paths if not_extracted else missing_images(split, names))
    embedded = {path for path in missing if in_parquet(split) and is_extracted(path.name)}
    missing -= embedded
    unreadable: set[Path] = set()
    sizes = set()
    for path in bar(paths, "reading image headers", "image"):
        if path in missing or path in embedded:
            continue
        try:
            sizes.add(photo_size(path))
        except BadImage:
            unreadable.add(path)
    result.facts["images"] = {
        "folder": folders_shown(split),
        "found": len(paths) - len(missing) - len(unreadable) - len(embedded),
        "missing": len(missing),
        "unreadable": len(unreadable),
        "smallest": min(sizes, default=None),
        "largest": max(sizes, default=None),
    }
    if embedded:
        result.facts["images"]["inside the Parquet file"] = len(embedded)
        result.notes.append(
            f"{split.questions}: {len(embedded):,} images inside it; hvx explain writes them out"
        )
    unusable = [path for path in paths if path in missing or path in unreadable]
    if not unusable:
        return
    counts = f"{len(missing):,} images missing, {len(unreadable):,} unreadable"
    message = f"{folders_shown(split)}: {counts}: {some_names(unusable)}"
    is_problem = explain.on_error == "stop" or len(unusable) == len(paths)
    (result.problems if is_problem else result.failures).append(message)


def _check_checkpoint(config: Config, questions: list[Question], result: CheckResult) -> CheckpointHeader:
    path = config.path(config.checkpoint)
    header = read_header(path)
    check_config(header.config, config, path)
    assert config.explain is not None
    check_map_size(header.config, config.explain, path)
    tokenize, words = tokenizer(header.config.encoder), set(header.words)
    tokens = [token for question in questions for token in tokenize(question.question)]
    truths = [question.ground_truth for question in questions if question.ground_truth]
    answers = set(header.answers)
    result.facts["checkpoint"] = {
        "file": str(path),
        "network": header.config.network,
        "image size": header.config.image.size,
        "answers": len(answers),
        "unknown tokens": _share(token not in words for token in tokens),
        "ground truths among its answers": _share(truth in answers for truth in truths),
    }
    return header


def _share(flags: Iterator[bool]) -> float | None:
    """The share of flags that are set; None if there are no flags."""
    values = list(flags)
    return round(sum(values) / len(values), 4) if values else None


def _check_size(
    config: Config, explain: ExplainConfig, shards: list[Shard], model: Source, result: CheckResult
) -> None:
    run, item_bytes = config.path(explain.run), model.item_bytes()
    shards_done = len(shards) - len(absent_shards(run, shards))
    side = explain.heatmap.size or model.image.size
    maps = f"{side}×{side} {explain.heatmap.dtype}" if _has_product(model) else "none"
    result.facts["run"] = {
        "folder": str(run),
        "shards": len(shards),
        "shards there": shards_done,
        "heat maps": maps,
        "bytes": item_bytes * sum(map(len, shards)),
        "free bytes": free_bytes(run),
    }
    check_room(run, shards, item_bytes, pack=False, log=lambda line: None)


def _has_product(source: Source) -> bool:
    """Whether the model has a Hadamard product; only a checkpoint may lack one."""
    return not isinstance(source, CheckpointSource) or source.has_product


def _check_time(
    config: Config,
    split: SplitConfig,
    explain: ExplainConfig,
    shards: list[Shard],
    source: Source,
    device: torch.device,
    result: CheckResult,
) -> None:
    """Explain the first images twice, with decoding, and extrapolate the second time to missing shards."""
    run = config.path(explain.run)
    missing = absent_shards(run, shards)
    facts: dict[str, Any] = {"device": str(device)}
    result.facts["time"] = facts
    if not missing:
        facts["seconds"] = 0
        return
    images = missing[0].images[: explain.batch_images or _TIMED_IMAGES]
    paths = [image_path(split, questions[0].image) for _, questions in images]
    if in_parquet(split) and not all(path.is_file() for path in paths):
        result.notes.append(f"{split.questions}: no time is measured while its images are inside it")
        facts["seconds"] = None
        return
    explainer, image = source.load(device), source.image
    indexed = [(i, question.question) for i, (_, questions) in enumerate(images) for question in questions]
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        batch = next(iter(input_batches(paths, image, [list(range(len(paths)))], 0, split.exif_orientation)))
        rows = {index: row for row, index in enumerate(batch.indices)}
        batch_questions = [(rows[index], question) for index, question in indexed if index in rows]
        if not batch_questions:
            raise HvxError(next(iter(batch.failures.values())))
        image_rows, texts = zip(*batch_questions, strict=True)
        explainer.explain(batch.inputs, list(image_rows), list(texts))
        seconds = time.perf_counter() - started
    rate = len(batch_questions) / seconds
    facts["explanations per second"] = round(rate, 2)
    facts["seconds"] = round(sum(map(len, missing)) / rate)
