"""Measures a run: maps, scores, means; the report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from hvx import __version__
from hvx.data.objects import ObjectTable
from hvx.errors import HvxError, Interrupted
from hvx.files import whole_file, write_json
from hvx.measure import methods, sanity, speech
from hvx.measure.claims import as_json
from hvx.measure.compute import Maps, is_table, make_curves, make_ends, make_maps
from hvx.measure.controls import attention_controls
from hvx.measure.faithfulness import BLUR, SHARES
from hvx.measure.human import HumanMaps
from hvx.measure.image_use import image_use
from hvx.measure.measures import Measures
from hvx.measure.plots import write_plots
from hvx.measure.scores import check_masks, score_curves, score_maps
from hvx.measure.shelf import FOLDER, Shelf, maps_key, opened_shelf
from hvx.measure.subject import Subject
from hvx.measure.tables import report, zero_gradients
from hvx.measure.words_report import paper_tokens, run_tokens, run_word_agreement, word_means
from hvx.run.stop import heeded
from hvx.store.reader import RunReader
from hvx.store.schema import ZERO_IMAGE_GRADIENT, ZERO_WORD_GRADIENT

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What is measured, and on how much.

    Attributes:
        methods: names of methods; none: all.
        sample: explanations to draw; 0: all.
        curves: of these, explanations for deletion and insertion; 0: none.
        sanity: of these, explanations for randomization; 0: none.
        human: folder of human attention maps in VQA-HAT's layout.
        seed: of every draw.
        target: of the split's table of objects; None: its first.
        with_target: draw only explanations whose question has a target in that table.
    """

    methods: tuple[str, ...] = ()
    sample: int = 1000
    curves: int = 200
    sanity: int = 50
    human: Path | None = None
    seed: int = 0
    target: str | None = None
    with_target: bool = False


def check_installed(options: Options) -> None:
    """Refuse, ahead of any work, what needs a library that is not installed.

    Raises:
        HvxError: one line that says what to install.
    """
    methods.check_installed(methods.chosen(options.methods, glimpses=1))
    if options.sanity:
        sanity.check_installed()
    speech.check_installed()


def measure_run(
    run: Path, options: Options, device: torch.device, overrides: list[str], output: Path, say: Say
) -> Measures:
    """Measure a run and write ``measure.json``, ``measure.md`` and the plots.

    What takes time is kept under ``RUN/measure`` as it is done, by method; the same call resumes from there.
    If that folder is read-only, it is kept in ``output``.

    Args:
        run: a finished run's folder.
        options: what is measured.
        device: where the network runs.
        overrides: ``key=value`` strings laid over the run's config, for what has moved since.
        output: folder for the report.
        say: told what a user should know, a line at a time.

    Raises:
        HvxError: the run, its checkpoint or a named file is not there or another one, a method is not
            known, or a library is not installed.
        BadImage: an image of the sample cannot be read, or is not the one that was explained.
    """
    with closing(RunReader(run)) as reader:
        reader.check_heatmaps()
        names = methods.chosen(options.methods, reader.glimpses)
        check_installed(options)
        subject = Subject(reader, overrides, device, options.sample, options.seed)
        truth = _Truth(subject, options)
        if options.with_target:
            assert truth.table
            subject.draw_among(truth.table.with_target(), options.sample, options.seed)
        found = Measures(_about(reader, subject, options, truth), names)
        _leave_out(found, subject, options, say)
        _count_zero_gradients(found, reader, subject, say)
        key = _key(reader, subject, options)
        with opened_shelf(run / FOLDER, key, output, say) as shelf, _interruptible(subject):
            subject.check_images()
            if truth.table:
                check_masks(subject, truth.table)
            _measure(found, subject, shelf, options, truth)
        if reader.column("length").any():
            found.words = word_means(run_tokens(reader), options.seed)
            found.paper_words = word_means(paper_tokens(), options.seed)
            found.word_agreement = run_word_agreement(reader, options.seed)
    _write(found, output)
    return found


class _Truth:
    """What maps are held against: the objects asked about, where the split has masks; where people look."""

    def __init__(self, subject: Subject, options: Options) -> None:
        named = options.target is not None or options.with_target
        self.table = ObjectTable(subject.split, options.target) if subject.split.objects or named else None
        self.human = HumanMaps(options.human, subject.model.config.image) if options.human else None


@contextmanager
def _interruptible(subject: Subject) -> Iterator[None]:
    """A request to stop is answered with how to go on."""
    with heeded() as requests:
        subject.check = requests.check
        try:
            yield
        except (KeyboardInterrupt, HvxError) as error:
            # The same signal may have ended a decoding process first, and so have led to an error.
            if isinstance(error, HvxError) and not requests.came:
                raise
            raise Interrupted(
                f"{subject.reader.path}: interrupted; what is done is kept, the same command goes on"
            ) from None


def _measure(found: Measures, subject: Subject, shelf: Shelf, options: Options, truth: _Truth) -> None:
    """What is measured of the sample."""
    names, seed, images = found.methods, options.seed, subject.images
    make_maps(subject, shelf, names, seed)
    curves = min(options.curves, len(subject))
    if curves:
        ends = make_ends(subject, shelf, curves)
        pairs = make_curves(subject, shelf, names, ends, seed)
        found.add_curves(pairs, ends, images, seed)
    checked = min(options.sanity, len(subject))
    if checked:
        found.add_sanity(_similarities(subject, shelf, names, checked, seed), images, seed)
    scored, agreement, regions = score_maps(subject, Maps(shelf, names), truth.table, truth.human)
    if curves:
        scored |= score_curves(pairs)
    found.add_scores(scored, images, seed)
    found.add_agreement(agreement, images, seed)
    found.image_use = image_use(subject, shelf, seed)
    if not found.image_use:
        found.left_out.append("what the image contributes: the run has no ground truth")
    if subject.glimpses:
        found.controls = attention_controls(subject, seed)
    if regions:
        found.add_regions(regions, scored, images, seed)
    if truth.human and "human" not in scored:
        found.left_out.append("agreement with people: none of their maps is of a question of the sample")
    if truth.table and not regions:
        found.left_out.append("localization: no question of the sample asks about an object that is there")


def _similarities(subject: Subject, shelf: Shelf, names: list[str], count: int, seed: int) -> dict[str, Any]:
    """How alike maps stay under randomization, from the shelf where it is there."""
    checked = [name for name in names if name in sanity.CHECKED]
    found = {name: shelf.result(f"sanity-{count}/{name}") for name in checked}
    absent = [name for name in checked if not _is_sanity(found[name], subject, count)]
    if absent:
        for name, own in sanity.make_similarities(subject, absent, count, seed).items():
            shelf.keep(f"sanity-{count}/{name}", own)
            found[name] = own
    return found


def _is_sanity(found: Any, subject: Subject, count: int) -> bool:
    """Whether a value that was read from a file is what ``make_similarities`` returns for a method."""
    stages = [sanity.OTHER_IMAGE, *sanity.stages(subject.model)]
    return (
        isinstance(found, dict)
        and list(found) == stages
        and all(is_table(pairs, (count, 2)) for pairs in found.values())
    )


def _key(reader: RunReader, subject: Subject, options: Options) -> dict[str, Any]:
    """All that decides what is kept of the sample: another one has a shelf of its own."""
    ids = reader.column("question_id")[subject.numbers].tolist()
    return {**maps_key(reader, ids), "shares": SHARES, "blur": BLUR, "seed": options.seed}


def _about(reader: RunReader, subject: Subject, options: Options, truth: _Truth) -> dict[str, Any]:
    packages = ("torch", "torchvision", "captum", "scikit-image", "textblob")
    return {
        "run": str(reader.path),
        "explanations": len(subject),
        "of": len(reader),
        "images": len(set(subject.images.tolist())),
        "seed": options.seed,
        "target": truth.table.target if truth.table else None,
        "with_target": options.with_target,
        "targets": list(truth.table.targets) if truth.table else [],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "device": str(subject.device),
        "cores": os.cpu_count(),
        "versions": {"hvx": __version__} | {name: _version(name) for name in packages},
        "model": subject.model.config.model_dump(mode="json"),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _leave_out(found: Measures, subject: Subject, options: Options, say: Say) -> None:
    """Say what cannot be measured here, and why."""
    if subject.split.objects is None:
        found.left_out.append(
            f"localization: split '{subject.explain.split}' has no table of objects with masks"
        )
    if not subject.glimpses:
        found.left_out.append("agreement with the attention: the model has none")
    if not subject.reader.column("length").any():
        found.left_out.append("words: no question of the run has a token")
    if not options.human:
        found.left_out.append("agreement with people: no folder of their attention maps was given (--human)")
    for name, count in (("deletion and insertion", options.curves), ("sanity", options.sanity)):
        if not count:
            found.left_out.append(f"{name}: not asked for")
    for line in found.left_out:
        say(f"left out: {line}")


def _count_zero_gradients(found: Measures, reader: RunReader, subject: Subject, say: Say) -> None:
    """Count the explanations that say nothing: maps of the sample, words of the run."""
    zero = reader.column("zero_gradient")
    found.zero_maps = int((zero[subject.numbers] & ZERO_IMAGE_GRADIENT > 0).sum())
    found.zero_words = int((zero & ZERO_WORD_GRADIENT > 0).sum())
    for line in zero_gradients(found):
        say(line)


def _write(found: Measures, output: Path) -> None:
    """The report's files, each whole or not at all."""
    drawn = write_plots(found, output)
    with whole_file(output / "measure.md") as part:
        part.write_text(report(found, drawn), encoding="utf-8")
    write_json(output / "measure.json", as_json(found), indent=1)
