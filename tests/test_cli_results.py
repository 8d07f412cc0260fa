"""What explain, info and reproduce pass on, print and exit with; the default of every option."""

from __future__ import annotations

import importlib
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import torch
from conftest import Done, hvx
from test_cli_arguments import commands

from hvx.cli.figure_options import report_missing_glyphs
from hvx.run.explain import Options, Summary
from hvx.run.lock import Part
from hvx.run.ray.placement import Workers

CPU = torch.device("cpu")


class Calls(dict[str, list[Any]]):
    """Name of a replaced function → the arguments of each call."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.patch = patch

    def replace(self, target: str, result: Any = None) -> None:
        module, name = target.rsplit(".", 1)

        def stand_in(*args: Any, **kwargs: Any) -> Any:
            assert not kwargs
            self.setdefault(name, []).append(args)
            return result

        self.patch.setattr(importlib.import_module(module), name, stand_in)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    for name in ("c.yaml", "run/run.json", "m.safetensors"):
        (tmp_path / name).touch()
    return Calls(monkeypatch)


# explain


def explained(calls: Calls, summary: Summary, *options: str) -> tuple[Done, Any]:
    calls.replace("hvx.config.load", "config")
    calls.replace("hvx.adapters.source.source_for", "source")
    calls.replace("hvx.run.local.local_engine", "local engine")
    calls.replace("hvx.run.explain.explain_split", summary)
    done = hvx("explain", "c.yaml", "--device", "cpu", *options)
    return done, calls["explain_split"][-1]


WHOLE = Summary(Path("RUN"), 1234, 0, 5, 0, 2.04)


@pytest.mark.parametrize(
    ("options", "overrides", "passed"),
    [
        ([], [], Options(False, False)),
        (["--retry-failed"], [], Options(True, False)),
        (["--pack"], [], Options(False, True)),
        (["--part", "3/8"], [], Options(part=Part(3, 8))),
        (["--set", "seed=1", "--set", "root=x"], ["seed=1", "root=x"], Options(False, False)),
        (["--on-error", "stop"], ["explain.on_error=stop"], Options(False, False)),
        (
            ["--on-error", "skip", "--set", "seed=1"],
            ["seed=1", "explain.on_error=skip"],
            Options(False, False),
        ),
    ],
)
def test_explain_passes_every_option_on(
    calls: Calls, options: list[str], overrides: list[str], passed: Options
) -> None:
    done, args = explained(calls, WHOLE, *options)
    assert done == Done(0, "RUN: 1,234 questions explained in 2.0 s\n", "")
    assert calls["load"] == [(Path("c.yaml"), overrides, True)]
    assert calls["source_for"] == [("config", None)] and args[4] == "source"
    assert calls["local_engine"] == [(CPU,)]
    assert args[:3] == ("config", "local engine", passed)


ZERO = (
    "{} is zero everywhere for {} of 1,234 questions: their {} say nothing (dead ReLUs, or a saturated tanh "
    "or sigmoid)\n"
)


@pytest.mark.parametrize(
    ("summary", "status", "stdout", "stderr"),
    [
        (
            Summary(Path("RUN"), 1234, 0, 5, 3, 2.06), 0,
            "RUN: 1,234 questions explained in 2.1 s (3 shards were done before)\n", "",
        ),
        (
            Summary(Path("RUN"), 1234, 1, 5, 0, 2.0), 3,
            "RUN: 1,234 questions explained in 2.0 s\n1 questions could not be explained; see "
            "RUN/failures.jsonl; results.json holds them with the answer ''\n", "",
        ),
        (
            Summary(Path("RUN"), 1234, 2, 5, 0, 2.0, selected=True), 3,
            "RUN: 1,234 questions explained in 2.0 s\nresults.json holds the 1,236 questions that limit or "
            "explain.pick selects, not all\n2 questions could not be explained; see RUN/failures.jsonl; "
            "results.json holds them with the answer ''\n", "",
        ),
        (
            Summary(Path("RUN"), 1234, 0, 5, 0, 2.0, zero_image_gradients=1), 0,
            "RUN: 1,234 questions explained in 2.0 s\n", ZERO.format("Eq. 2 (image)", 1, "heat maps"),
        ),
        (
            Summary(Path("RUN"), 1234, 0, 5, 0, 2.0, zero_word_gradients=1200), 0,
            "RUN: 1,234 questions explained in 2.0 s\n",
            ZERO.format("Eq. 3 (words)", "1,200", "token z-scores"),
        ),
    ],
)  # fmt: skip
def test_explain_says_what_it_did(
    calls: Calls, summary: Summary, status: int, stdout: str, stderr: str
) -> None:
    done, _ = explained(calls, summary)
    assert done == Done(status, stdout, stderr)


def test_what_a_run_logs_is_on_stderr(calls: Calls) -> None:
    _, args = explained(calls, WHOLE)
    assert len(args) == 5


def test_explain_starts_rays_workers_as_asked(calls: Calls) -> None:
    given: list[Any] = []

    @contextmanager
    def ray_engine(asked: Workers, say: Any) -> Any:
        given.append(asked)
        yield "ray engine"

    calls.patch.setattr("hvx.run.ray.engine.ray_engine", ray_engine)
    calls.replace("hvx.config.load", "config")
    calls.replace("hvx.adapters.source.source_for", "source")
    calls.replace("hvx.run.explain.explain_split", WHOLE)
    options = ["--address", "host:1", "--workers", "3", "--gpus-per-worker", "0.5"]
    assert hvx("explain", "c.yaml", "--engine", "ray", *options).returncode == 0
    assert hvx("explain", "c.yaml", "--engine", "ray").returncode == 0
    assert given == [Workers("host:1", 3, 0.5), Workers(None, None, None)]
    assert calls["explain_split"][0][:3] == ("config", "ray engine", Options(False, False))


@pytest.mark.parametrize(
    ("option", "value"), [("--address", "a"), ("--workers", "1"), ("--gpus-per-worker", "0")]
)
def test_an_option_of_ray_needs_the_engine(calls: Calls, option: str, value: str) -> None:
    done = hvx("explain", "c.yaml", option, value)
    said = f"Error: {option} is for --engine ray; without that, one process does all the work\n"
    assert done == Done(2, "", said)


def test_a_device_is_for_the_local_engine(calls: Calls) -> None:
    done = hvx("explain", "c.yaml", "--engine", "ray", "--device", "cpu")
    said = "Error: --device cpu is for --engine local; Ray's workers have --gpus-per-worker\n"
    assert done == Done(2, "", said)


# info


def test_info_prints_names_and_values(calls: Calls) -> None:
    calls.replace("hvx.info.describe", {"run": "r", "explanations": "a\nb"})
    for path in ("run", "m.safetensors"):
        done = hvx("info", path)
        assert done == Done(0, "run:          r\nexplanations: a\\nb\n", "")
    assert calls["describe"] == [(Path("run"),), (Path("m.safetensors"),)]


@pytest.mark.parametrize(
    ("found", "status", "said"),
    [
        (
            {"whole": 1234, "damaged": {}, "absent": 0, "finished": True, "read_only": False}, 0,
            "run: 1,234 shards whole, 0 files damaged\n",
        ),
        (
            {"whole": 2, "damaged": {Path("run/shards/1.h5"): "odd"}, "absent": 1001, "finished": False,
             "read_only": False}, 3,
            "run/shards/1.h5: damaged (odd); set aside as 1.h5.damaged\nrun: 2 shards whole, 1 files damaged"
            ", 1,001 absent\nThe run is not finished; `hvx explain` with its config makes what is missing\n",
        ),
        (
            {"whole": 2, "damaged": {Path("run/shards/1.h5"): "odd"}, "absent": 0, "finished": False,
             "read_only": True}, 3,
            "run/shards/1.h5: damaged (odd); left in place (read-only)\nrun: 2 shards whole, 1 files damaged"
            "\nThe run is not finished; `hvx explain` with its config makes what is missing\n",
        ),
    ],
)  # fmt: skip
def test_info_verifies_a_run(calls: Calls, found: dict[str, Any], status: int, said: str) -> None:
    calls.replace("hvx.run.verify.verify", SimpleNamespace(**found))
    assert hvx("info", "run", "--verify") == Done(status, said, "")
    assert calls["verify"][0][0] == Path("run")


# reproduce


@pytest.mark.parametrize("ok", [True, False])
def test_reproduce_passes_every_option_on_and_prints_its_tables(calls: Calls, ok: bool) -> None:
    measures = SimpleNamespace(about={"explanations": 1234})
    result = SimpleNamespace(
        checks=[SimpleNamespace(ok=True), SimpleNamespace(ok=ok)], figures={Path("f.png"): "Figure 2"},
        measures=measures, report=Path("report.md"),
    )  # fmt: skip
    calls.replace("hvx.reproduce.reproduce", result)
    calls.replace("hvx.reproduce_checks.as_table", "CHECKS\nROW")
    calls.replace("hvx.measure.report.markdown.overview", "OVERVIEW")
    calls.replace("hvx.measure.report.markdown.claims_table", "CLAIMS")
    done = hvx("reproduce", "--device", "cpu")
    said = (
        "\nCHECKS\nROW\n\nf.png: Figure 2\n\nOVERVIEW\n\nCLAIMS\n\nreport.md: 1,234 explanations measured\n"
    )
    assert done == Done(0 if ok else 3, said, "")
    assert calls["reproduce"][0][:6] == (Path("runs/reproduce"), 2500, 500, 0, CPU, [])
    assert calls["as_table"] == [(result.checks, None)]
    assert calls["overview"] == calls["claims_table"] == [(measures, None)]
    options = ["-o", "out", "--train", "7", "--val", "6", "--seed", "5", "--set", "a=1", "--set", "b=2"]
    hvx("reproduce", "--device", "cpu", *options)
    assert calls["reproduce"][1][:6] == (Path("out"), 7, 6, 5, CPU, ["a=1", "b=2"])


# Options


COMMON = {"--quiet": False, "--debug": False}
LOOK = {
    "--style": "color",
    "--outline": None,
    "--width": None,
    "--inches": None,
    "--dpi": 200,
    "--page-rows": 8,
    "--font-pt": None,
    "--digits": 2,
}
BACKBONE = {"--backbone": "required", "--architecture": "resnet152", "--node": None}
OPTIONS: dict[str, dict[str, Any]] = {
    "ask": {"--output": "required", **LOOK, "--json": False, "--device": "auto"},
    "compare": {
        "--json": False, "--output": None, "--list": None, "--by": None, "--no-maps": False,
        "--allow-changed": "many", "--seed": 0,
    },
    "explain": {
        "--set": "many", "--model": None, "--on-error": None, "--retry-failed": False, "--part": None,
        "--pack": False, "--device": "auto",
        "--engine": "local", "--address": None, "--workers": None, "--gpus-per-worker": None, "--json": False,
    },
    "figure": {
        "--output": "required", "--rows": None, "--id": "many", "--answer-type": "many",
        "--question-type": "many", "--only": None, "--by": None, "--top-answers": False, **LOOK, "--seed": 0,
        "--methods": None, "--device": "auto",
    },
    "gallery": {
        "--output": "required", "--size": 320, "--workers": None, "--methods": None, "--seed": 0,
        "--device": "auto",
    },
    "info": {"--verify": False, "--json": False},
    "check": {
        "--set": "many", "--model": None, "--device": "auto", "--no-timing": False, "--json": False,
    },
    "measure": {
        "--methods": "", "--sample": 1000, "--curves": 200, "--sanity": 50, "--human": None, "--output": None,
        "--target": None, "--with-target": False, "--seed": 0, "--set": "many", "--json": False,
        "--device": "auto",
    },
    "reproduce": {
        "--output": "runs/reproduce", "--train": 2500, "--val": 500, "--seed": 0, "--set": "many",
        "--device": "auto",
    },
    "scenes": {"--train": 2500, "--val": 500, "--size": 112, "--seed": 0},
    "train": {"--set": "many", "--restart": False, "--device": "auto"},
    "config show": {"--set": "many", "--json": False},
    "config schema": {"--output": None},
    "import torch7": {"--glimpses": None, **BACKBONE, "--output": "required"},
    "import torch7-mrn": {"--blocks": None, **BACKBONE, "--output": "required"},
    "import vqa-pytorch": {
        "--checkpoint": "best", "--options": None, "--vocabulary": None, **BACKBONE, "--output": "required",
    },
    "import fbresnet152": {"--output": "required"},
    "import skipthoughts": {"--output": "required"},
}  # fmt: skip


def default_of(option: click.Option) -> Any:
    if option.required:
        return "required"
    return "many" if option.multiple else option.to_info_dict()["default"]


def test_every_option_has_the_default_of_this_table() -> None:
    found = {
        " ".join(words): {
            option.opts[-1]: default_of(option)
            for option in command.params
            if isinstance(option, click.Option)
        }
        for words, command in commands().items()
        if not isinstance(command, click.Group)
    }
    assert found == {name: options | COMMON for name, options in OPTIONS.items()}


def test_a_seed_is_whole_and_has_bounds() -> None:
    seeds = [p for c in commands().values() for p in c.params if p.name == "seed"]
    assert len(seeds) == 6
    for seed in seeds:
        assert [seed.type.convert(text, seed, None) for text in ("0", str(2**63 - 1))] == [0, 2**63 - 1]
        for wrong in ("-1", str(2**63), "1.5", "x"):
            with pytest.raises(click.BadParameter):
                seed.type.convert(wrong, seed, None)


@pytest.mark.parametrize(
    ("characters", "codes"),
    [
        ("a这", "U+0061 U+8FD9"),
        ("b" * 12, " ".join(["U+0062"] * 12)),
        ("b" * 13, " ".join(["U+0062"] * 12) + " …"),
    ],
)
def test_characters_without_a_font_are_told_on_stderr(
    capsys: pytest.CaptureFixture[str], characters: str, codes: str
) -> None:
    report_missing_glyphs(characters)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"no font here has {codes}; ")
    assert err.count("\n") == 1
    report_missing_glyphs("")
    assert capsys.readouterr() == ("", "")
