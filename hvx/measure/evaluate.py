"""Measures a run: maps, scores, means; the report."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from hvx import __version__
from hvx.data.object_masks import ObjectTable
from hvx.errors import HvxError, Interrupted
from hvx.files import atomic_write, write_json
from hvx.measure.cache import FOLDER, ResultCache, maps_key, open_cache
from hvx.measure.methods import registry
from hvx.measure.metrics import pos_tags, sanity
from hvx.measure.metrics.controls import attention_controls
from hvx.measure.metrics.faithfulness import BLUR, SHARES
from hvx.measure.metrics.human_attention import HumanMaps
from hvx.measure.metrics.image_use import image_use
from hvx.measure.metrics.results import MetricResults
from hvx.measure.metrics.scores import check_masks, score_curves, score_maps
from hvx.measure.pipeline import Maps, is_table, make_baseline_probabilities, make_curves, make_maps
from hvx.measure.report.claims import as_json
from hvx.measure.report.markdown import report, zero_gradients
from hvx.measure.report.plots import write_plots
from hvx.measure.report.words import paper_tokens, run_tokens, run_word_agreement, word_means
from hvx.measure.sample import EvaluationSample
from hvx.progress import Log
from hvx.run.signals import handle_signals
from hvx.store.reader import RunReader
from hvx.store.schema import ZERO_IMAGE_GRADIENT, ZERO_WORD_GRADIENT


@dataclass(frozen=True)
class Options:
    """What is measured, and sample sizes.

    Attributes:
        methods: names of methods; all if empty.
        sample: explanations to draw; 0: all.
        curves: of these, explanations for deletion and insertion; 0: none.
        sanity: of these, explanations for randomization; 0: none.
        human: folder of human attention maps in VQA-HAT's layout.
        seed: of every draw.
        target: of the split's table of objects; the first if None.
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
    """Reject options that need a library that is not installed, before any work is done.

    Raises:
        HvxError: one line that says what to install.
    """
    registry.chosen(options.methods, glimpses=1)
    if options.sanity:
        sanity.check_installed()
    pos_tags.check_installed()


def measure_run(
    run: Path, options: Options, device: torch.device, overrides: list[str], output: Path, log: Log
) -> MetricResults:
    """Measure a run and write ``measure.json``, ``measure.md`` and the plots.

    Slow results are saved under ``RUN/measure`` as they are computed, by method; the same call resumes from
    there. If that folder is read-only, they are saved in ``output``.

    Args:
        run: a finished run's folder.
        options: of the measurement.
        device: of the network.
        overrides: ``key=value`` strings that override the run's config, for files that have moved.
        output: folder for the report.
        log: receives messages for the user, a line at a time.

    Raises:
        HvxError: the run, its checkpoint or a named file is missing or another one, a method is unknown, or a
            library is not installed.
        BadImage: an image of the sample cannot be read, or is not the one that was explained.
    """
    with closing(RunReader(run)) as reader:
        reader.check_heatmaps()
        names = registry.chosen(options.methods, reader.glimpses)
        check_installed(options)
        sample = EvaluationSample(reader, overrides, device, options.sample, options.seed)
        truth = _Truth(sample, options)
        if options.with_target:
            assert truth.table
            sample.draw_among(truth.table.with_target(), options.sample, options.seed)
        measures = MetricResults(_about(reader, sample, options, truth), names)
        _leave_out(measures, sample, options, log)
        _count_zero_gradients(measures, reader, sample, log)
        key = _key(reader, sample, options)
        with open_cache(run / FOLDER, key, output, log) as cache, _interruptible(sample):
            sample.check_images()
            if truth.table:
                check_masks(sample, truth.table)
            _measure(measures, sample, cache, options, truth)
        if reader.column("length").any():
            measures.words = word_means(run_tokens(reader), options.seed)
            measures.paper_words = word_means(paper_tokens(), options.seed)
            measures.word_agreement = run_word_agreement(reader, options.seed)
    _write(measures, output)
    return measures


class _Truth:
    """What maps are compared with: the objects asked about, if the split has masks; human attention maps."""

    def __init__(self, sample: EvaluationSample, options: Options) -> None:
        has_table = sample.split.objects or options.target is not None or options.with_target
        self.table = ObjectTable(sample.split, options.target) if has_table else None
        self.human = HumanMaps(options.human, sample.model.config.image) if options.human else None


@contextmanager
def _interruptible(sample: EvaluationSample) -> Iterator[None]:
    """A request to stop raises an error that says how to resume."""
    with handle_signals() as requests:
        sample.check = requests.check
        try:
            yield
        except (KeyboardInterrupt, HvxError) as error:
            # The same signal may have ended a decoding process first, which raises an error.
            if isinstance(error, HvxError) and not requests.came:
                raise
            raise Interrupted(
                f"{sample.reader.path}: interrupted; what is done is kept, the same command resumes"
            ) from None


def _measure(
    measures: MetricResults, sample: EvaluationSample, cache: ResultCache, options: Options, truth: _Truth
) -> None:
    """Compute the measures of the sample."""
    names, seed, images = measures.methods, options.seed, sample.images
    make_maps(sample, cache, names, seed)
    curves = min(options.curves, len(sample))
    if curves:
        ends = make_baseline_probabilities(sample, cache, curves)
        pairs = make_curves(sample, cache, names, ends, seed)
        measures.add_curves(pairs, ends, images, seed)
    checked = min(options.sanity, len(sample))
    if checked:
        measures.add_sanity(_similarities(sample, cache, names, checked, seed), images, seed)
    scored, agreement, regions = score_maps(sample, Maps(sample, cache, names), truth.table, truth.human)
    if curves:
        scored |= score_curves(pairs)
    measures.add_scores(scored, images, seed)
    measures.add_agreement(agreement, images, seed)
    measures.image_use = image_use(sample, cache, seed)
    if not measures.image_use:
        measures.left_out.append("what the image contributes: the run has no ground truth")
    if sample.glimpses:
        measures.controls = attention_controls(sample, seed)
    if regions:
        measures.add_regions(regions, scored, images, seed)
    if truth.human and "human" not in scored:
        measures.left_out.append("agreement with people: none of their maps is of a question of the sample")
    if truth.table and not regions:
        measures.left_out.append("localization: no question of the sample asks about an object that is there")


def _similarities(
    sample: EvaluationSample, cache: ResultCache, names: list[str], count: int, seed: int
) -> dict[str, Any]:
    """The similarity of maps under randomization, from the cache if it is there."""
    checked = [name for name in names if name in sanity.CHECKED]
    by_method = {name: cache.result(f"sanity-{count}/{name}") for name in checked}
    absent = [name for name in checked if not _is_sanity(by_method[name], sample, count)]
    if absent:
        for name, by_stage in sanity.make_similarities(sample, absent, count, seed).items():
            cache.keep(f"sanity-{count}/{name}", by_stage)
            by_method[name] = by_stage
    return by_method


def _is_sanity(by_stage: Any, sample: EvaluationSample, count: int) -> bool:
    """Whether a value read from a file has the form that ``make_similarities`` returns for a method."""
    stages = [sanity.OTHER_IMAGE, *sanity.stages(sample.model)]
    return (
        isinstance(by_stage, dict)
        and list(by_stage) == stages
        and all(is_table(pairs, (count, 2)) for pairs in by_stage.values())
    )


def _key(reader: RunReader, sample: EvaluationSample, options: Options) -> dict[str, Any]:
    """All that determines the cached results of the sample: another key has another cache folder."""
    ids = reader.column("question_id")[sample.numbers].tolist()
    return {**maps_key(reader, ids), "shares": SHARES, "blur": BLUR, "seed": options.seed}


def _about(reader: RunReader, sample: EvaluationSample, options: Options, truth: _Truth) -> dict[str, Any]:
    packages = ("torch", "torchvision", "scikit-image", "textblob")
    return {
        "run": str(reader.path),
        "explanations": len(sample),
        "of": len(reader),
        "images": len(set(sample.images.tolist())),
        "seed": options.seed,
        "target": truth.table.target if truth.table else None,
        "with_target": options.with_target,
        "targets": list(truth.table.targets) if truth.table else [],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "device": str(sample.device),
        "cores": os.cpu_count(),
        "versions": {"hvx": __version__} | {name: _version(name) for name in packages},
        "model": sample.model.config.model_dump(mode="json"),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _leave_out(measures: MetricResults, sample: EvaluationSample, options: Options, log: Log) -> None:
    """Note and report what cannot be measured here, and why."""
    if sample.split.objects is None:
        measures.left_out.append(
            f"localization: split '{sample.explain.split}' has no table of objects with masks"
        )
    if not sample.glimpses:
        measures.left_out.append("agreement with the attention: the model has none")
    if not sample.reader.column("length").any():
        measures.left_out.append("words: no question of the run has a token")
    if not options.human:
        measures.left_out.append(
            "agreement with people: no folder of their attention maps was given (--human)"
        )
    for name, count in (("deletion and insertion", options.curves), ("sanity", options.sanity)):
        if not count:
            measures.left_out.append(f"{name}: not asked for")
    for line in measures.left_out:
        log(f"left out: {line}")


def _count_zero_gradients(
    measures: MetricResults, reader: RunReader, sample: EvaluationSample, log: Log
) -> None:
    """Count the explanations with zero gradients: maps of the sample, words of the run."""
    zero = reader.column("zero_gradient")
    measures.zero_maps = int((zero[sample.numbers] & ZERO_IMAGE_GRADIENT > 0).sum())
    measures.zero_words = int((zero & ZERO_WORD_GRADIENT > 0).sum())
    for line in zero_gradients(measures):
        log(line)


def _write(measures: MetricResults, output: Path) -> None:
    """Write the report's files atomically."""
    drawn = write_plots(measures, output)
    with atomic_write(output / "measure.md") as part:
        part.write_text(report(measures, drawn), encoding="utf-8")
    write_json(output / "measure.json", as_json(measures), indent=1)
