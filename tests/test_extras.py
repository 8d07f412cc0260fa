"""hvx without its extras: what the core does, and the one line in which the rest says what to install."""

from __future__ import annotations

import ast
import configparser
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from conftest import REPOSITORY, Tiny

import hvx
from hvx.extras import lacking, require

ABSENT = ("matplotlib", "contourpy", "scipy", "captum", "skimage", "textblob")
BLOCK = f"import sys\nsys.modules.update(dict.fromkeys({ABSENT!r}))\n"
"""A module that is None in sys.modules is one that Python does not find."""
FIGURES = "needs Matplotlib, contourpy and SciPy: pip install 'hvx[figures]'"
CORE_COMMANDS = ("check", "config", "explain", "import_", "info", "scenes", "train")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables with which a Python finds none of the extras' modules."""
    folder = tmp_path_factory.mktemp("without")
    (folder / "sitecustomize.py").write_text(BLOCK)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(REPOSITORY)])}


def python(environment: dict[str, str], cwd: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, check=False)


def test_the_modules_are_absent_there(environment: dict[str, str], tmp_path: Path) -> None:
    for module in ABSENT:
        done = python(environment, tmp_path, "-c", f"import {module}")
        assert done.returncode == 1 and "ModuleNotFoundError" in done.stderr


# What needs no extra


@pytest.fixture(scope="module")
def trained(
    tiny: Tiny, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str, str]:
    """A model trained without extras, and what `hvx train` said."""
    checkpoint = tmp_path_factory.mktemp("trained") / "own.safetensors"
    settings = f"root={tiny.root}", f"checkpoint={checkpoint}"
    options = [part for setting in settings for part in ("--set", setting)]
    checkpoint.with_suffix(".plot.png").touch()  # of an earlier training
    done = python(environment, checkpoint.parent, "-m", "hvx", "train", tiny.config, *options)
    assert done.returncode == 0, done.stderr
    return checkpoint, done.stdout, done.stderr


def test_a_training_leaves_its_plot_out_and_says_so_once(trained: tuple[Path, str, str]) -> None:
    checkpoint, out, said = trained
    line = "left out: the plot of the training needs Matplotlib: pip install 'hvx[figures]'"
    assert said.splitlines().count(line) == 1
    quoted = (REPOSITORY / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert f"```console\n{line}\n```" in quoted
    assert "loss and accuracy" not in out
    assert hvx.load_model(checkpoint).config.network == "mlb"
    assert not list(checkpoint.parent.glob("*.png"))


def test_a_split_is_checked_and_explained(
    tiny: Tiny, environment: dict[str, str], trained: tuple[Path, str, str], tmp_path: Path
) -> None:
    settings = [*tiny.settings(tmp_path / "run"), f"checkpoint={trained[0]}"]
    options = [part for setting in settings for part in ("--set", setting)]
    for command in ("check", "explain"):
        done = python(environment, tmp_path, "-m", "hvx", command, tiny.config, *options)
        assert done.returncode == 0, done.stderr
    done = python(environment, tmp_path, "-m", "hvx", "info", tmp_path / "run")
    assert done.returncode == 0 and "explanations: 39" in done.stdout
    with hvx.open_run(tmp_path / "run") as run:
        assert len(run) > 0 and run[0].heatmap is not None


def test_commands_that_compute_little(environment: dict[str, str], tmp_path: Path) -> None:
    for words in (
        ("scenes", "drawn", "--train", "2", "--val", "2"),
        ("import", "torch7", "-h"),
        ("config", "show", REPOSITORY / "configs" / "scenes.yaml"),
    ):
        done = python(environment, tmp_path, "-m", "hvx", *words)
        assert done.returncode == 0, done.stderr


# What needs one


def commands(run: Path, model: Path, photo: Path) -> dict[str, tuple[tuple[object, ...], str]]:
    """By command: its arguments, and the line without it."""
    measure = "pip install 'hvx[measure]'"
    return {
        "figure": ((run, "-o", "out/a.png"), f"hvx figure {FIGURES}"),
        "ask": ((model, photo, "is it red?", "-o", "out/a.png"), f"hvx ask {FIGURES}"),
        "gallery": ((run, "-o", "out"), f"hvx gallery {FIGURES}"),
        "compare": ((run, run, "-o", "out"), f"hvx compare needs SciPy: {measure}"),
        "measure": ((run, "-o", "out"), f"hvx measure needs Matplotlib and SciPy: {measure}"),
        "reproduce": (
            ("-o", "out"),
            "hvx reproduce needs Matplotlib, contourpy, SciPy, Captum, scikit-image and TextBlob: "
            "pip install 'hvx[figures,measure]'",
        ),
    }


@pytest.mark.parametrize("command", ["figure", "ask", "gallery", "compare", "measure", "reproduce"])
def test_a_command_says_what_to_install_before_any_work(
    command: str, tiny: Tiny, finished_run: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    photo = next((tiny.root / "scenes").rglob("*.png"))
    arguments, line = commands(finished_run, tiny.root / "model.safetensors", photo)[command]
    before = sorted(finished_run.rglob("*"))
    done = python(environment, tmp_path, "-m", "hvx", command, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"Error: {line}\n")
    assert not list(tmp_path.iterdir())
    assert sorted(finished_run.rglob("*")) == before


API = """
import sys
import torch
import hvx
style = hvx.FigureStyle("paper")
why = hvx.Explainer(hvx.load_model(sys.argv[1])).explain(sys.argv[2], "is it red?")
run = hvx.open_run(sys.argv[3])
made = {name: None for name in hvx.ProductExplanation.__dataclass_fields__}
made |= dict(joined=[], word_gradient=torch.zeros(1, 2, 3), product=torch.zeros(1, 4), rule="gradient")
product = hvx.ProductExplanation(**made | dict(image_gradient=torch.zeros(1, 3, 4, 4)))
assert why.heatmap is not None and run[0].heatmap is not None
for draw in (why.figure, run[0].figure, product.figure, lambda: why.figure(methods=["gradient"])):
    try:
        draw()
    except hvx.HvxError as error:
        print(error)
print(why._repr_png_(), why._repr_html_()[:17], product._repr_html_()[:24])
"""


def test_python_explains_and_says_what_a_figure_needs(
    tiny: Tiny, finished_run: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    photo = next((tiny.root / "scenes").rglob("*.png"))
    done = python(environment, tmp_path, "-c", API, tiny.root / "model.safetensors", photo, finished_run)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"a figure {FIGURES}"] * 4 + [
        "None <pre>Explanation( <pre>ProductExplanation("
    ]


# The line itself


def test_only_absent_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert lacking("figures", "it") == lacking("figures,measure", "it") == ""
    require("figures", "it")
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert lacking("figures", "it", hint=", or not") == "it needs SciPy: pip install 'hvx[figures]', or not"
    assert lacking("figures", "it", "matplotlib") == ""
    with pytest.raises(hvx.HvxError, match=r"^it needs SciPy: pip install 'hvx\[figures,measure\]'$"):
        require("figures,measure", "it")


def test_a_folder_of_the_same_name_is_not_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a_package_of_nobody").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert lacking("x", "it", "a_package_of_nobody") == "it needs a_package_of_nobody: pip install 'hvx[x]'"


# What setup.cfg declares

SETUP = configparser.ConfigParser()
SETUP.read(REPOSITORY / "setup.cfg")


def named(requirements: str) -> set[str]:
    """The packages of a list in setup.cfg, without versions."""
    return {re.split(r"[<>=\[]", line)[0].lower() for line in requirements.split("\n") if line}


def test_the_core_has_few_requirements() -> None:
    core = named(SETUP["options"]["install_requires"])
    assert len(core) <= 13
    assert not core & {"matplotlib", "contourpy", "scipy"}


def imported(path: Path, everywhere: bool) -> Iterator[str]:
    """Modules that a file imports at the top, or anywhere; not those for type checks alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)  # may be modules, too
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def file_of(module: str) -> Path | None:
    path = REPOSITORY / module.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def core_files() -> set[Path]:
    """The files that a core command or a public name imports.

    The commands import what they call in their functions. Other files import there what is optional.
    """
    starts = {REPOSITORY / "hvx" / "cli" / f"{name}.py" for name in CORE_COMMANDS}
    todo = [*starts, *filter(None, map(file_of, set(hvx._HOMES.values()))), REPOSITORY / "hvx/cli/main.py"]
    seen: set[Path] = set()
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            todo += filter(None, map(file_of, imported(path, everywhere=path in starts)))
    return seen


def test_what_the_core_imports_is_declared() -> None:
    files = core_files()
    for name in ("run/worker.py", "train/trainer.py", "train/loop.py", "importers/torch7.py", "api.py"):
        assert REPOSITORY / "hvx" / name in files
    assert REPOSITORY / "hvx/view/figure.py" not in files
    modules = {module.split(".")[0] for path in files for module in imported(path, everywhere=False)}
    others = modules - set(sys.stdlib_module_names) - {"hvx", "pydantic_core"}  # the latter is of pydantic
    packages = packages_distributions()
    undeclared = {
        module
        for module in others
        if not named(SETUP["options"]["install_requires"]) & {name.lower() for name in packages[module]}
    }
    assert others >= {"torch", "numpy", "h5py", "click"}
    assert not undeclared
