"""Explains a split: plans the shards, has an engine compute the missing ones, and finishes the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from hvx.config import Config, ExplainConfig, ImageConfig, SplitConfig
from hvx.data.find_questions import SelectedQuestions, find_questions
from hvx.data.image_files import folders_shown, missing_images, some_names
from hvx.data.images import crop_rule
from hvx.data.questions import Question, read_questions
from hvx.errors import HvxError, Interrupted
from hvx.files import sha256
from hvx.progress import Log, bar, no_log
from hvx.run.identity import RunIdentity, versions
from hvx.run.lock import Busy, Part
from hvx.run.run_directory import SHARDS, RunFolder, now, opened_run, own_shards
from hvx.run.shards import Shard, plan_shards
from hvx.run.signals import StopSignal, handle_signals
from hvx.run.size import check_room
from hvx.run.source import CheckpointSource, Source
from hvx.store.schema import IDS, VERSION


class Engine(Protocol):
    """Computes shards. ``about`` says on what device, for run.json."""

    about: str

    def compute(self, shards: Sequence[Shard], folder: Path) -> Generator[Shard, None, None]:
        """Write each shard into ``folder``; yields each shard when it is done, in any order."""


StartEngine = Callable[[Config, RunIdentity], Engine]
"""Makes an engine for a run."""


@dataclass(frozen=True)
class Options:
    """Options of a run that are not in its config; they do not change its items."""

    retry_failed: bool = False
    """Compute shards again that contain questions that could not be explained."""
    pack: bool = False
    """Write one solid file, not a view of the shards."""
    part: Part | None = None
    """Compute only this part of the shards; other processes may compute other parts at the same time."""


@dataclass(frozen=True)
class Summary:
    """Totals of a run: questions explained and failed, shards done now and before, seconds taken.

    ``zero_image_gradients``, ``zero_word_gradients``: explanations whose Eq. 2, or Eq. 3, is zero everywhere.
    ``selected``: whether ``limit`` or ``explain.pick`` selected the questions; if not, it is the whole split.
    ``part``: the part that was computed, if other parts are not done yet; the counts are then this part's,
    and ``left`` is the number of shards that are not done. None if the run is complete.
    """

    run: Path
    explained: int
    failed: int
    done_now: int
    done_before: int
    seconds: float
    zero_image_gradients: int = 0
    zero_word_gradients: int = 0
    selected: bool = False
    part: Part | None = None
    left: int = 0


def explain_split(
    config: Config,
    start: StartEngine,
    options: Options = Options(),
    log: Log = no_log,
    source: Source | None = None,
) -> Summary:
    """Explain the split that the config names; an existing run folder is resumed.

    All checks of the request happen before the folder is created.

    Args:
        config: the whole tree, with ``explain``.
        start: creates the engine; called after the request has been checked.
        options: how the run is stored, and which part of it to compute.
        log: receives messages for the user, a line at a time.
        source: the model; the checkpoint that the config names if None.

    Raises:
        HvxError: a file is missing or wrong, or the folder contains another run.
        BadImage: an image cannot be read, and the config says to stop on that.
    """
    started = time.time()
    if config.explain is None:
        raise HvxError("config: key 'explain' is missing; it names the run folder (explain.run)")
    split = config.split(config.explain.split)
    data = data_digests(split)
    questions, picked = _questions(split, config.explain, log)
    if data_digests(split) != data:
        raise HvxError(f"{split.questions}: changed while it, or its annotations, was read; run this again")
    shards = plan_shards(questions, config.explain.shard_questions)
    _check_images(split, shards, config.explain, log)
    model = source or CheckpointSource(config)
    values = identity_values(model, config.explain, split, data, picked)
    identity = RunIdentity(values, versions() | model.versions(), source)
    for line in model.notes():
        log(line)
    image, run = model.image, config.path(config.explain.run)
    assigned = own_shards(shards, options.part)
    # For all missing shards, even if this is a part: the other parts write to the same disk.
    check_room(run, shards, model.item_bytes(), options.pack, log)
    engine = start(config, identity)
    about = _run_description(config, split, image, picked, len(shards), identity, _integer_ids(questions)) | {
        "device": engine.about
    }
    attributes = {"crop": crop_rule(image), "product": config.explain.product}

    def finish(folder: RunFolder) -> Summary:
        packed = options.pack or folder.is_packed
        folder.finish(attributes, time.time() - started, packed, log)
        return _summary(folder, shards, len(folder.failures()), folder.zero_gradients())

    with (
        opened_run(run, about, shards, log, options.part) as folder,
        _interruptible(folder) as requests,
    ):
        to_compute = _shards_to_compute(folder, options, log)
        if to_compute:
            folder.record_versions(identity.versions, log)
            _compute(engine, folder, to_compute, requests)
        summary = (
            _summary(folder, assigned, _count_failed(folder, assigned)) if options.part else finish(folder)
        )
    if options.part:
        left = sum(not folder.is_done(shard) for shard in shards)
        incomplete = replace(summary, part=options.part, left=left)
        summary = _finish_if_last_part(run, about, shards, log, finish) or incomplete
    return replace(
        summary,
        done_now=len(to_compute),
        done_before=len(assigned) - len(to_compute),
        seconds=time.time() - started,
        selected=picked is not None or split.limit is not None,
    )


def _summary(
    folder: RunFolder, shards: list[Shard], failed: int, zero_gradients: tuple[int, int] = (0, 0)
) -> Summary:
    """Totals of these shards, without the fields about what was done when."""
    explained = sum(map(len, shards)) - failed
    return Summary(folder.path, explained, failed, 0, 0, 0.0, *zero_gradients)


def _count_failed(folder: RunFolder, shards: list[Shard]) -> int:
    """The number of the shards' questions that could not be explained."""
    return 0 if folder.stands_alone else sum(len(folder.failures_of(shard)) for shard in shards)


def _finish_if_last_part(
    run: Path, about: dict[str, Any], shards: list[Shard], log: Log, finish: Callable[[RunFolder], Summary]
) -> Summary | None:
    """Finish the run if all of its parts are done; None if others are still at work or have not begun.

    A part writes its shards before it releases the folder. So if several parts end at the same time, the last
    one that checks finds all shards.
    """
    try:
        with opened_run(run, about, shards, log, finishing=True) as folder, _interruptible(folder):
            if _shards_to_compute(folder, Options(), log):
                return None
            folder.sweep()
            return finish(folder)
    except Busy:
        return None


def _shards_to_compute(folder: RunFolder, options: Options, log: Log) -> list[Shard]:
    """The shards to compute: absent and damaged ones and, with ``retry_failed``, those with failures."""
    if folder.stands_alone:
        if options.retry_failed and folder.failures():
            raise HvxError(
                f"{folder.path}: packed, and some of its shards are gone; give explain.run a new folder to "
                "try again"
            )
        return []
    shards = folder.missing(log)
    if options.retry_failed:
        absent = {shard.number for shard in shards}
        written = [shard for shard in folder.own if shard.number not in absent]
        shards += [shard for shard in written if folder.failures_of(shard)]
    return sorted(shards, key=lambda shard: shard.number)


def _compute(engine: Engine, folder: RunFolder, shards: list[Shard], requests: StopSignal) -> None:
    folder.reopen()
    # Closed in any case, so that nothing is written after this function ends.
    with closing(engine.compute(shards, folder.path / SHARDS)) as results:
        for _ in bar(results, "explaining", "shard", total=len(shards)):
            folder.check_held()
            requests.check()


@contextmanager
def _interruptible(folder: RunFolder) -> Iterator[StopSignal]:
    """On a request to stop, raise an error that says how to resume."""
    with handle_signals() as requests:
        try:
            yield requests
        except (KeyboardInterrupt, Exception) as error:
            # The same signal may have ended a decoding process first, which raises another error.
            if not isinstance(error, KeyboardInterrupt) and not requests.came:
                raise
            done_count = sum(folder.is_done(shard) for shard in folder.shards)
            raise Interrupted(
                f"{folder.path}: interrupted; {done_count:,} of {len(folder.shards):,} shards are done; "
                "the same command resumes from there"
            ) from None


def _questions(
    split: SplitConfig, explain: ExplainConfig, log: Log
) -> tuple[list[Question], SelectedQuestions | None]:
    """The questions to explain: all of the split's, or those that the config selects."""
    questions = read_questions(split, log)
    if not explain.pick:
        return questions, None
    picked = find_questions(questions, explain.pick, split.questions)
    for line in picked.ambiguities():
        log(line)
    return picked.questions, picked


def _check_images(split: SplitConfig, shards: list[Shard], explain: ExplainConfig, log: Log) -> None:
    """Check for missing images before any work is done."""
    names = [questions[0].image for shard in shards for _, questions in shard.images]
    missing = missing_images(split, names)
    if not missing:
        return
    count = f"{len(missing):,} of the split's {len(names):,} images are missing"
    if explain.on_error == "stop" or len(missing) == len(names):
        skip = "" if len(missing) == len(names) else "; --on-error skip explains the others"
        raise HvxError(f"{missing[0]}: no such image ({count}{skip})")
    log(
        f"{folders_shown(split)}: {count}: {some_names(missing)}; "
        "their questions will be listed in failures.jsonl"
    )


def data_digests(split: SplitConfig) -> dict[str, Any]:
    """Digests of the files with the split's questions and answers; reading an absent one is an error."""
    files = {"questions_sha256": split.questions, "annotations_sha256": split.annotations}
    return {key: sha256(path) if path and path.is_file() else None for key, path in files.items()}


def _integer_ids(questions: list[Question]) -> list[str]:
    """The id fields that are integers in the split's file; the others are strings."""
    return [name for name in IDS if isinstance(getattr(questions[0], name), int)]


def identity_values(
    source: Source,
    explain: ExplainConfig,
    split: SplitConfig,
    data: dict[str, Any],
    picked: SelectedQuestions | None,
) -> dict[str, Any]:
    """Everything that determines the run's items."""
    return {
        "schema_version": VERSION,
        **source.identity(),
        **data,
        "format": split.format,
        "image_name": split.image_name,
        "exif_orientation": split.exif_orientation,
        "limit": split.limit,
        "picked": [choice["question_id"] for choice in picked.choices] if picked else None,
        "precision": explain.precision,
        "product": explain.product,
        "heatmap": explain.heatmap.model_dump(),
        "gradient": explain.gradient,
        "shard_questions": explain.shard_questions,
    }


def _run_description(
    config: Config,
    split: SplitConfig,
    image: ImageConfig,
    picked: SelectedQuestions | None,
    shards: int,
    identity: RunIdentity,
    integer_ids: list[str],
) -> dict[str, Any]:
    """The content of run.json, without the device."""
    image_folders = [str(folder.resolve()) for folder in split.folders]
    return {
        "identity": identity.values,
        "image": image.model_dump(mode="json"),
        "images": image_folders if isinstance(split.images, tuple) else image_folders[0],
        "integer_ids": integer_ids,
        "exif_orientation": split.exif_orientation,
        "picked": picked.choices if picked else None,
        "shards": shards,
        # With an absolute root, so that the paths stay valid when the file is read from another folder.
        "config": config.model_copy(update={"root": config.path(Path()).absolute()}).model_dump(mode="json"),
        "versions": identity.versions,
        "seed": config.seed,
        "started": now(),
        "finished": None,
    }
