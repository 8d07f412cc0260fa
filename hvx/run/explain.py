"""A run over a split: planned, its absent shards computed by an engine, then finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from hvx.config import Config, ExplainConfig, ImageConfig, SplitConfig
from hvx.data.image_files import folders_shown, missing_images, some_names
from hvx.data.images import crop_rule
from hvx.data.pick import Picked, pick_questions
from hvx.data.questions import Question, read_questions
from hvx.errors import HvxError, Interrupted
from hvx.files import sha256
from hvx.progress import bar
from hvx.run.folder import SHARDS, RunFolder, now, opened_run, own_shards
from hvx.run.identity import RunIdentity, versions
from hvx.run.lock import Busy, Part, Say, no_log
from hvx.run.plan import Shard, plan_shards
from hvx.run.size import check_room
from hvx.run.source import CheckpointSource, Source
from hvx.run.stop import Requests, heeded
from hvx.store.schema import IDS, VERSION


class Engine(Protocol):
    """What computes shards, somewhere. ``about`` says where, for run.json."""

    about: str

    def compute(self, shards: Sequence[Shard], folder: Path) -> Generator[Shard, None, None]:
        """Write each shard into ``folder``; yields those done, as they are done, in any order."""


StartEngine = Callable[[Config, RunIdentity], Engine]
"""Makes an engine for a run."""


@dataclass(frozen=True)
class Options:
    """What is asked of a run beyond its config: both change how it is kept, not what it holds."""

    retry_failed: bool = False
    """Do the shards again that hold questions which could not be explained."""
    pack: bool = False
    """Make one solid file of the shards, not a view."""
    part: Part | None = None
    """Compute only this part of the shards; other processes may compute others at the same time."""


@dataclass(frozen=True)
class Summary:
    """What a run holds: questions explained and failed, shards done now and before, seconds taken.

    ``zero_image_gradients``, ``zero_word_gradients``: explanations whose Eq. 2, or Eq. 3, is zero everywhere.
    ``selected``: these are the questions that ``limit`` or ``explain.pick`` selects, not the whole split.
    ``part``: of a run that other parts have still to complete; the counts are then this part's, and ``left``
    is how many shards are not done yet. None: the run is complete.
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
    say: Say = no_log,
    source: Source | None = None,
) -> Summary:
    """Explain the split that the config names, continuing its run folder where one exists.

    Everything that can be refused is refused before the folder is made.

    Args:
        config: the whole tree, with ``explain``.
        start: makes the engine; called once the request is known to be sound.
        options: how the run is kept, and whether this is a part of the work.
        say: told what a user should know, a line at a time.
        source: what explains; None: the checkpoint that the config names.

    Raises:
        HvxError: a file is missing or wrong, or the folder holds a run of something else.
        BadImage: an image cannot be read, and the config says to stop on that.
    """
    started = time.time()
    if config.explain is None:
        raise HvxError("config: key 'explain' is missing; it names the run folder (explain.run)")
    split = config.split(config.explain.split)
    data = data_digests(split)
    questions, picked = _questions(split, config.explain, say)
    if data_digests(split) != data:
        raise HvxError(f"{split.questions}: changed while it, or its annotations, was read; run this again")
    shards = plan_shards(questions, config.explain.shard_questions)
    _check_images(split, shards, config.explain, say)
    model = source or CheckpointSource(config)
    values = identity_values(model, config.explain, split, data, picked)
    identity = RunIdentity(values, versions() | model.versions(), source)
    for line in model.notes():
        say(line)
    image, run = model.image, config.path(config.explain.run)
    own = own_shards(shards, options.part)
    # Of all that is absent, also where this is a part: the others write on the same disk.
    check_room(run, shards, model.item_bytes(), options.pack, say)
    engine = start(config, identity)
    about = _describe(config, split, image, picked, len(shards), identity, _integer_ids(questions)) | {
        "device": engine.about
    }
    attributes = {"crop": crop_rule(image), "product": config.explain.product}

    def end(folder: RunFolder) -> Summary:
        packed = options.pack or folder.is_packed
        folder.finish(attributes, time.time() - started, packed, say)
        return _summary(folder, shards, len(folder.failures()), folder.zero_gradients())

    with (
        opened_run(run, about, shards, say, options.part) as folder,
        _interruptible(folder) as requests,
    ):
        wanted = _wanted(folder, options, say)
        if wanted:
            folder.record_versions(identity.versions, say)
            _compute(engine, folder, wanted, requests)
        summary = _summary(folder, own, _failed(folder, own)) if options.part else end(folder)
    if options.part:
        left = sum(not folder.is_done(shard) for shard in shards)
        incomplete = replace(summary, part=options.part, left=left)
        summary = _ended_by_the_last(run, about, shards, say, end) or incomplete
    return replace(
        summary,
        done_now=len(wanted),
        done_before=len(own) - len(wanted),
        seconds=time.time() - started,
        selected=picked is not None or split.limit is not None,
    )


def _summary(
    folder: RunFolder, shards: list[Shard], failed: int, zero_gradients: tuple[int, int] = (0, 0)
) -> Summary:
    """What these shards of a run hold, but for what was done when."""
    explained = sum(map(len, shards)) - failed
    return Summary(folder.path, explained, failed, 0, 0, 0.0, *zero_gradients)


def _failed(folder: RunFolder, shards: list[Shard]) -> int:
    """How many questions of shards could not be explained."""
    return 0 if folder.stands_alone else sum(len(folder.failures_of(shard)) for shard in shards)


def _ended_by_the_last(
    run: Path, about: dict[str, Any], shards: list[Shard], say: Say, end: Callable[[RunFolder], Summary]
) -> Summary | None:
    """End a run of which all parts are done; None while others work on theirs, or have not begun.

    A part writes its shards ahead of letting the folder go. So of parts that end together the last one to
    ask finds all of them.
    """
    try:
        with opened_run(run, about, shards, say, finishing=True) as folder, _interruptible(folder):
            if _wanted(folder, Options(), say):
                return None
            folder.sweep()
            return end(folder)
    except Busy:
        return None


def _wanted(folder: RunFolder, options: Options, say: Say) -> list[Shard]:
    """The shards to compute: those absent or damaged, and those that failed if they are asked for."""
    if folder.stands_alone:
        if options.retry_failed and folder.failures():
            raise HvxError(
                f"{folder.path}: packed, and some of its shards are gone; give explain.run a new folder to "
                "try again"
            )
        return []
    wanted = folder.missing(say)
    if options.retry_failed:
        absent = {shard.number for shard in wanted}
        there = [shard for shard in folder.own if shard.number not in absent]
        wanted += [shard for shard in there if folder.failures_of(shard)]
    return sorted(wanted, key=lambda shard: shard.number)


def _compute(engine: Engine, folder: RunFolder, wanted: list[Shard], requests: Requests) -> None:
    folder.reopen()
    # However this ends, nothing is written after it.
    with closing(engine.compute(wanted, folder.path / SHARDS)) as done:
        for _ in bar(done, "explaining", "shard", total=len(wanted)):
            folder.check_held()
            requests.check()


@contextmanager
def _interruptible(folder: RunFolder) -> Iterator[Requests]:
    """A request to stop is answered with how to go on."""
    with heeded() as requests:
        try:
            yield requests
        except (KeyboardInterrupt, Exception) as error:
            # The same signal may have ended a decoding process first, and so have led to an error.
            if not isinstance(error, KeyboardInterrupt) and not requests.came:
                raise
            done = sum(folder.is_done(shard) for shard in folder.shards)
            raise Interrupted(
                f"{folder.path}: interrupted; {done:,} of {len(folder.shards):,} shards are done; "
                "the same command goes on from there"
            ) from None


def _questions(split: SplitConfig, explain: ExplainConfig, say: Say) -> tuple[list[Question], Picked | None]:
    """What is explained: the split's questions, or those that the config picks."""
    questions = read_questions(split, say)
    if not explain.pick:
        return questions, None
    picked = pick_questions(questions, explain.pick, split.questions)
    for line in picked.ambiguities():
        say(line)
    return picked.questions, picked


def _check_images(split: SplitConfig, shards: list[Shard], explain: ExplainConfig, say: Say) -> None:
    """Count the images that are not there before any work is done."""
    names = [own[0].image for shard in shards for _, own in shard.images]
    missing = missing_images(split, names)
    if not missing:
        return
    count = f"{len(missing):,} of the split's {len(names):,} images are missing"
    if explain.on_error == "stop" or len(missing) == len(names):
        skip = "" if len(missing) == len(names) else "; --on-error skip explains the others"
        raise HvxError(f"{missing[0]}: no such image ({count}{skip})")
    say(
        f"{folders_shown(split)}: {count}: {some_names(missing)}; "
        "their questions will be listed in failures.jsonl"
    )


def data_digests(split: SplitConfig) -> dict[str, Any]:
    """Digests of the files with the split's questions and answers; reading an absent one is an error."""
    files = {"questions_sha256": split.questions, "annotations_sha256": split.annotations}
    return {key: sha256(path) if path and path.is_file() else None for key, path in files.items()}


def _integer_ids(questions: list[Question]) -> list[str]:
    """The kinds of ids that the split's file has as integers; the others are texts."""
    return [name for name in IDS if isinstance(getattr(questions[0], name), int)]


def identity_values(
    source: Source, explain: ExplainConfig, split: SplitConfig, data: dict[str, Any], picked: Picked | None
) -> dict[str, Any]:
    """All that decides what the run's items are."""
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


def _describe(
    config: Config,
    split: SplitConfig,
    image: ImageConfig,
    picked: Picked | None,
    shards: int,
    identity: RunIdentity,
    integer_ids: list[str],
) -> dict[str, Any]:
    """What run.json says, but for the device."""
    folders = [str(folder.resolve()) for folder in split.folders]
    return {
        "identity": identity.values,
        "image": image.model_dump(mode="json"),
        "images": folders if isinstance(split.images, tuple) else folders[0],
        "integer_ids": integer_ids,
        "exif_orientation": split.exif_orientation,
        "picked": picked.choices if picked else None,
        "shards": shards,
        # With an absolute root, so that the paths are those of this run in whatever folder it is read.
        "config": config.model_copy(update={"root": config.path(Path()).absolute()}).model_dump(mode="json"),
        "versions": identity.versions,
        "seed": config.seed,
        "started": now(),
        "finished": None,
    }
