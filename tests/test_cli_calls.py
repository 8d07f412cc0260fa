"""What each command passes on: every option, as given and by default, and the bounds it accepts."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner, Result

from hvx.cli import main
from hvx.view.export import PageSetup
from hvx.view.style import FigureStyle


@dataclass
class Calls:
    """Stands for the functions that commands call; remembers positional and named arguments."""

    patch: pytest.MonkeyPatch
    made: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=dict)

    def of(self, target: str, result: Any = None) -> None:
        """Replace ``module.name``."""
        module, name = target.rsplit(".", 1)

        def stand_in(*args: Any, **kwargs: Any) -> Any:
            self.made[name] = args, kwargs
            return result

        self.patch.setattr(importlib.import_module(module), name, stand_in)


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command lines of this file name is there: commands check it first."""
    monkeypatch.chdir(tmp_path)
    for folder in ("run", "somewhere/run", "maps"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("run/run.json", "somewhere/run/run.json", "c.yaml", "m.safetensors", "photo.jpg"):
        (tmp_path / name).touch()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


CPU = torch.device("cpu")


@pytest.fixture
def figure_calls(calls: Calls) -> Callable[..., dict[str, Any]]:
    def call(*options: object) -> dict[str, Any]:
        calls.of("hvx.store.reader.RunReader", nullcontext("reader"))
        calls.of("hvx.figures.draw_runs", SimpleNamespace(question_ids=[17, "4b"], missing_glyphs=""))
        done = run("figure", "somewhere/run", "-o", "figure.png", *options)
        assert done.exit_code == 0, done.output
        assert done.stdout == "figure.png: 2 explanations\nquestion_id: 17, 4b\n"
        args, kwargs = calls.made["draw_runs"]
        readers, choice, output, *how = args
        assert (readers, output) == (["reader"], Path("figure.png"))
        assert not kwargs
        names = ("width", "style", "setup", "methods", "device")
        return vars(choice) | dict(zip(names, how, strict=True))

    return call


FIGURE = {
    "ids": (), "answer_types": (), "question_types": (), "right": None, "order": "random", "count": 3,
    "seed": 0, "width": 1200, "style": FigureStyle("color", None, False), "setup": PageSetup(200, 8),
    "among": None, "methods": None, "device": "auto",
}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ([], {}),
        (["--rows", 7], {"count": 7}),
        (["--id", 17, "--id", 3], {"ids": ("17", "3")}),
        (["--answer-type", "number", "--answer-type", "other"], {"answer_types": ("number", "other")}),
        (["--question-type", "how many"], {"question_types": ("how many",)}),
        (["--only", "right"], {"right": True}),
        (["--only", "wrong"], {"right": False}),
        (["--by", "random"], {}),
        (["--by", "agreement"], {"order": "agreement"}),
        (["--by", "disagreement"], {"order": "disagreement"}),
        (["--seed", 5], {"seed": 5}),
        (["--methods", "gradient, proposed"], {"methods": ["gradient", "proposed"]}),
        (["--device", "cpu"], {"device": "cpu"}),
        (["--top-answers"], {"style": FigureStyle("color", None, True)}),
        (["--style", "color"], {}),
        (["--style", "paper"], {"style": FigureStyle("paper", None, False)}),
        (["--outline"], {"style": FigureStyle("color", True, False)}),
        (["--no-outline"], {"style": FigureStyle("color", False, False)}),
        (["--style", "paper", "--outline"], {"style": FigureStyle("paper", True, False)}),
        (["--width", 300], {"width": 300}),
        (["--width", 20_000], {"width": 20_000}),
        (["--style", "colour"], {"style": FigureStyle("color")}),
        (["--digits", 4], {"style": FigureStyle(digits=4)}),
        (["--font-pt", 6.5], {"style": FigureStyle(font_pt=6.5)}),
        (["--font-pt", 6.5, "--inches", 3], {"width": 600, "style": FigureStyle(font_pt=6.5)}),
        (["--inches", 3], {"width": 600, "style": FigureStyle(font_pt=8)}),
        (["--inches", 5.5], {"width": 1100, "style": FigureStyle(font_pt=8)}),
        (["--inches", 11], {"width": 2200, "style": FigureStyle(font_pt=16)}),
        (
            ["--inches", 5.5, "--dpi", 300],
            {"width": 1650, "setup": PageSetup(300, 8), "style": FigureStyle(font_pt=8)},
        ),
        (
            ["--inches", 1, "--dpi", 300],
            {"width": 300, "setup": PageSetup(300, 8), "style": FigureStyle(font_pt=8)},
        ),
        (["--dpi", 50], {"setup": PageSetup(50, 8)}),
        (["--page-rows", 1], {"setup": PageSetup(200, 1)}),
        (["--page-rows", 64], {"setup": PageSetup(200, 64)}),
    ],
)
def test_figure_passes_every_option_on(
    figure_calls: Callable[..., dict[str, Any]], options: list[object], changed: dict[str, Any]
) -> None:
    assert figure_calls(*options) == {**FIGURE, **changed}


@pytest.mark.parametrize("arguments", [["figure", "run"], ["ask", __file__, __file__, "is it red ?"]])
def test_the_former_name_of_the_papers_style_is_told_in_one_line(arguments: list[str]) -> None:
    done = run(*arguments, "-o", "figure.png", "--style", "brightness")
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].endswith("'brightness': this style is called 'paper'")


@pytest.mark.parametrize("rule", [["--rows", 2], ["--answer-type", "x"], ["--question-type", "x"],
                                  ["--only", "right"], ["--by", "random"]])  # fmt: skip
def test_figure_with_ids_rejects_every_other_choice_of_rows(rule: list[object]) -> None:
    done = run("figure", "run", "-o", "figure.png", "--id", 17, *rule)
    assert done.exit_code == 2
    assert "--id 17: " in done.stderr


@pytest.mark.parametrize("rule", [["--rows", 2], ["--answer-type", "x"], ["--question-type", "x"],
                                  ["--only", "right"], ["--by", "random"], ["--id", 3]])  # fmt: skip
def test_figure_into_a_folder_rejects_every_choice_of_rows(tmp_path: Path, rule: list[object]) -> None:
    for folder in (tmp_path, Path("no-suffix")):
        done = run("figure", "run", "-o", folder, *rule)
        assert done.exit_code == 2
        assert f"{folder}: a folder gets the figures that explain.pick names" in done.stderr


@pytest.mark.parametrize("missing", [[], ["picked question 7 could not be explained"]])
def test_figure_into_a_folder_draws_the_picks(calls: Calls, tmp_path: Path, missing: list[str]) -> None:
    calls.of("hvx.store.reader.RunReader", nullcontext("reader"))
    drawn = SimpleNamespace(files={tmp_path / "figure2.png": [7, 5, 6]}, missing=missing, missing_glyphs="")
    calls.of("hvx.view.run_figures.write_picked_figures", drawn)
    done = run("figure", "run", "-o", tmp_path, "--style", "paper", "--outline", "--width", 700)
    assert done.exit_code == (3 if missing else 0)
    assert calls.made["write_picked_figures"] == (
        ("reader", tmp_path, 700, FigureStyle("paper", True, False), PageSetup(200, 8)), {}
    )  # fmt: skip
    assert done.stdout == f"{tmp_path / 'figure2.png'}: 3 explanations\nquestion_id: 7, 5, 6\n"
    assert done.stderr == "".join(f"{line}\n" for line in missing)


@pytest.mark.parametrize(
    ("options", "pixels"), [(["--inches", 1, "--dpi", 299], 299), (["--inches", 100, "--dpi", 201], 20_100)]
)
def test_a_size_on_paper_has_the_bounds_of_the_width(options: list[object], pixels: int) -> None:
    done = run("figure", "run", "-o", "figure.png", *options)
    assert done.exit_code == 2
    assert f"{pixels} pixels; a figure is 300 to 20000 wide" in done.stderr


def test_a_width_is_given_once() -> None:
    done = run("figure", "run", "-o", "figure.png", "--inches", 7, "--width", 700)
    assert done.exit_code == 2
    assert "--inches 7: " in done.stderr
    assert "--width 700" in done.stderr


@pytest.mark.parametrize(
    ("options", "width", "style", "setup"),
    [
        ([], 1200, FigureStyle("color", None, True), PageSetup(200, 8)),
        (["--outline", "--width", 640], 640, FigureStyle("color", True, True), PageSetup(200, 8)),
        (
            ["--inches", 4, "--dpi", 100, "--page-rows", 3],
            400,
            FigureStyle("color", None, True, font_pt=8),
            PageSetup(100, 3),
        ),
    ],
)
def test_ask_passes_every_option_on(
    calls: Calls, options: list[object], width: int, style: FigureStyle, setup: PageSetup
) -> None:
    reply = SimpleNamespace(
        answers=[("red", 0.75), ("blue", 0.25)],
        tokens=[("what", 1.5), ("?", -1.5)],
        missing_glyphs="",
        unknown=["what", "?"],
        zero=["no gradient"],
    )
    calls.of("hvx.ask.ask", reply)
    done = run("ask", "m.safetensors", "photo.jpg", "what ?", "-o", "why.png", "--device", "cpu", *options)
    assert done.exit_code == 0, done.output
    expected = (Path("m.safetensors"), Path("photo.jpg"), "what ?", Path("why.png"), width, CPU, style, setup)
    assert calls.made["ask"] == (expected, {})
    assert done.stdout == (
        "  0.750  red\n  0.250  blue\nwhat +1.50  ? -1.50\nunknown to the model: what, ?\nno gradient\n"
        "why.png: red\n"
    )


@pytest.mark.parametrize("missing", [[], ["a.png: cannot be read"]])
@pytest.mark.parametrize(
    ("options", "workers", "size", "methods", "device", "seed"),
    [
        ([], None, 320, None, "auto", 0),
        (["--workers", 3, "--size", 64], 3, 64, None, "auto", 0),
        (
            ["--methods", "attention, grad-cam", "--device", "cpu", "--seed", 7],
            None, 320, ("attention", "grad-cam"), "cpu", 7,
        ),
    ],
)  # fmt: skip
def test_gallery_passes_every_option_on(
    calls: Calls,
    options: list[object],
    workers: int | None,
    size: int,
    methods: tuple[str, ...] | None,
    device: str,
    seed: int,
    missing: list[str],
) -> None:
    calls.of("hvx.gallery.build.build_gallery", SimpleNamespace(items=1234, missing=missing, notes=()))
    done = run("gallery", "run", "-o", "pages", *options)
    assert done.exit_code == (3 if missing else 0)
    (*args, further), kwargs = calls.made["build_gallery"]
    assert (args, kwargs) == ([Path("run"), Path("pages"), workers, size, None], {})
    assert (further.methods and tuple(further.methods), further.device, further.seed) == (
        methods,
        device,
        seed,
    )
    assert done.stdout == f"{Path('pages/index.html')}: 1,234 explanations\n"
    assert done.stderr == "".join(f"{line}\n" for line in missing)


def test_gallery_passes_a_second_run_on(calls: Calls) -> None:
    calls.of("hvx.gallery.build.build_gallery", SimpleNamespace(items=12, missing=[], notes=("one copied",)))
    done = run("gallery", "run", "run", "-o", "pages")
    args, kwargs = calls.made["build_gallery"]
    assert (args[:5], kwargs) == ((Path("run"), Path("pages"), None, 320, Path("run")), {})
    assert done.stdout == f"{Path('pages/index.html')}: 12 questions explained by both runs\n"
    assert done.stderr == "note: one copied\n"


def test_scenes_passes_every_option_on(calls: Calls) -> None:
    calls.of("hvx.data.scenes.write_scenes")
    done = run("scenes", "folder")
    assert calls.made["write_scenes"] == ((Path("folder"), 2500, 500, 112, 0), {})
    assert done.stdout == "folder: 2500 train and 500 val scenes of 112×112 pixels\n"
    run("scenes", "folder", "--train", 1, "--val", 2, "--size", 3, "--seed", 4)
    assert calls.made["write_scenes"] == ((Path("folder"), 1, 2, 3, 4), {})


MEASURE = {"methods": (), "sample": 1000, "curves": 200, "sanity": 50, "human": None, "seed": 0,
           "target": None, "with_target": False}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ([], {}),
        (["--methods", "gradient, attention,"], {"methods": ("gradient", "attention")}),
        (["--sample", 0], {"sample": 0}),
        (["--curves", 1], {"curves": 1}),
        (["--sanity", 2], {"sanity": 2}),
        (["--human", "maps"], {"human": Path("maps")}),
        (["--seed", 3], {"seed": 3}),
        (["--target", "named", "--with-target"], {"target": "named", "with_target": True}),
    ],
)
def test_measure_passes_every_option_on(calls: Calls, options: list[object], changed: dict[str, Any]) -> None:
    calls.of("hvx.measure.evaluate.measure_run", SimpleNamespace(about={"explanations": 1234}))
    calls.of("hvx.measure.report.markdown.overview", "OVERVIEW")
    calls.of("hvx.measure.report.markdown.claims_table", "CLAIMS")
    done = run("measure", "run", "--device", "cpu", *options)
    assert done.exit_code == 0, done.output
    args, kwargs = calls.made["measure_run"]
    assert (args[0], vars(args[1]), args[2:5]) == (
        Path("run"), {**MEASURE, **changed}, (CPU, [], Path("run/measure"))
    )  # fmt: skip
    assert not kwargs
    assert (
        done.stdout
        == f"OVERVIEW\n\nCLAIMS\n\n{Path('run/measure/measure.md')}: 1,234 explanations measured\n"
    )


def test_measure_writes_where_it_is_told(calls: Calls) -> None:
    calls.of("hvx.measure.evaluate.measure_run", SimpleNamespace(about={"explanations": 1}))
    calls.of("hvx.measure.report.markdown.overview", "")
    calls.of("hvx.measure.report.markdown.claims_table", "")
    done = run("measure", "run", "-o", "report", "--set", "seed=1", "--set", "root=x", "--device", "cpu")
    assert calls.made["measure_run"][0][3:5] == (["seed=1", "root=x"], Path("report"))
    assert done.stdout.endswith(f"{Path('report/measure.md')}: 1 explanations measured\n")


def test_train_passes_every_option_on(
    calls: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = SimpleNamespace(path=lambda path: tmp_path / path, checkpoint=Path("m.safetensors"))
    calls.of("hvx.config.load", config)
    calls.of("hvx.train.trainer.train_model", {"val_accuracy": 0.5})
    done = run("train", "c.yaml", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert calls.made["load"] == ((Path("c.yaml"), []), {})
    args, kwargs = calls.made["train_model"]
    assert (args[0], args[1], args[3], kwargs) == (config, CPU, False, {})
    assert (
        done.stdout.splitlines()[0]
        == f"{tmp_path / 'm.safetensors'}: trained, the checkpoint of the best epoch"
    )
    assert done.stdout.splitlines()[-1] == "  val_accuracy: 0.5"
    args[2]("epoch 1, loss 2")  # what happens meanwhile is no result
    assert capsys.readouterr() == ("", "epoch 1, loss 2\n")
    run("train", "c.yaml", "--device", "cpu", "--restart", "--set", "seed=1", "--set", "train.epochs=2")
    assert calls.made["load"] == ((Path("c.yaml"), ["seed=1", "train.epochs=2"]), {})
    assert calls.made["train_model"][0][3] is True


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("figure", ["--rows", 0]), ("figure", ["--width", 299]), ("figure", ["--width", 20_001]),
        ("figure", ["--inches", 0.9]), ("figure", ["--inches", 101]), ("figure", ["--dpi", 49]),
        ("figure", ["--dpi", 2401]), ("figure", ["--page-rows", 0]), ("figure", ["--page-rows", 65]),
        ("figure", ["--seed", -1]), ("figure", ["--only", "both"]), ("figure", ["--by", "chance"]),
        ("figure", ["--style", "loud"]),
        ("gallery", ["--size", 63]), ("gallery", ["--size", 2049]), ("gallery", ["--workers", 0]),
        ("gallery", ["--workers", 257]), ("scenes", ["--train", 0]), ("scenes", ["--val", 0]),
        ("scenes", ["--size", 0]), ("scenes", ["--seed", -1]), ("measure", ["--sample", -1]),
        ("measure", ["--curves", -1]), ("measure", ["--sanity", -1]), ("measure", ["--seed", -1]),
        ("reproduce", ["--train", 1]), ("reproduce", ["--val", 1]), ("reproduce", ["--seed", -1]),
        ("explain", ["--workers", 0]), ("explain", ["--gpus-per-worker", -0.1]),
        ("explain", ["--gpus-per-worker", 1.1]), ("explain", ["--engine", "dask"]),
        ("explain", ["--on-error", "ask"]),
    ],
)  # fmt: skip
def test_values_out_of_bounds_are_rejected(command: str, line: list[object]) -> None:
    needed = {"figure": ["run", "-o", "f.png"], "gallery": ["run", "-o", "g"], "scenes": ["d"],
              "measure": ["run"], "reproduce": [], "explain": ["c.yaml"]}[command]  # fmt: skip
    done = run(command, *needed, *line)
    assert done.exit_code == 2
    assert (
        f"Invalid value for '{line[0]}'" in done.stderr
        or f"Invalid value for '-o' / '{line[0]}'" in done.stderr
    )


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("figure", ["--inches", 100]), ("figure", ["--inches", 1]), ("figure", ["--dpi", 2400]),
        ("figure", ["--dpi", 50]), ("gallery", ["--size", 64]), ("gallery", ["--size", 2048]),
        ("gallery", ["--workers", 1]), ("gallery", ["--workers", 256]), ("measure", ["--sample", 0]),
        ("measure", ["--curves", 0]), ("measure", ["--sanity", 0]), ("reproduce", ["--train", 2]),
        ("reproduce", ["--val", 2]), ("explain", ["--workers", 1]), ("explain", ["--gpus-per-worker", 0]),
        ("explain", ["--gpus-per-worker", 1]),
    ],
)  # fmt: skip
def test_values_at_the_bounds_are_accepted(command: str, line: list[object]) -> None:
    options: dict[str, click.Parameter] = {
        name: parameter for parameter in main.commands[command].params for name in parameter.opts
    }
    for name, value in zip(line[::2], line[1::2], strict=True):
        options[str(name)].type.convert(str(value), None, None)


REQUIRED = {
    "figure": (["runs"], ["output"]), "gallery": (["run", "other"], ["output"]), "scenes": (["folder"], []),
    "ask": (["checkpoint", "image", "question"], ["output"]), "measure": (["run"], []), "reproduce": ([], []),
    "explain": (["config"], []), "train": (["config"], []), "info": (["path"], []),
}  # fmt: skip


@pytest.mark.parametrize("command", REQUIRED)
def test_what_a_command_requires(command: str) -> None:
    arguments, options = REQUIRED[command]
    parameters = main.commands[command].params
    assert [p.name for p in parameters if isinstance(p, click.Argument)] == arguments
    assert [p.name for p in parameters if isinstance(p, click.Option) and p.required] == options
