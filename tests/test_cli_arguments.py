"""Arguments of commands: what must be there is checked first, a run is found, every example works."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner
from conftest import REPOSITORY, Done, Tiny, hvx
from PIL import Image

from hvx.cli import main
from hvx.cli.common import run_folder
from hvx.errors import HvxError


def commands(group: click.Group = main, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    """Words → command, of all commands and groups."""
    found: dict[tuple[str, ...], click.Command] = {prefix: group}
    for name, command in group.commands.items():
        below = (*prefix, name)
        found |= commands(command, below) if isinstance(command, click.Group) else {below: command}
    return found


def error_of(done: Done) -> str:
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr.removeprefix("Error: ").rstrip("\n")


# Runs


def make_run(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").touch()
    return folder


def test_a_run_is_found_in_the_folder_around_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a" / "run")
    (tmp_path / "a" / "other").mkdir()
    (tmp_path / "a" / "model.safetensors").touch()
    assert run_folder(run) == run
    assert run_folder(tmp_path / "a") == run
    make_run(tmp_path / "a")  # a run itself comes before what lies in it
    assert run_folder(tmp_path / "a") == tmp_path / "a"


def test_a_folder_of_no_run_or_several_is_rejected(tmp_path: Path) -> None:
    make_run(tmp_path / "deep" / "a" / "run")
    with pytest.raises(HvxError, match=rf"^{tmp_path}/deep: not a run folder; there is no run\.json in it$"):
        run_folder(tmp_path / "deep")
    make_run(tmp_path / "two" / "b")
    make_run(tmp_path / "two" / "a")
    several = rf"^{tmp_path}/two: holds 2 runs; name one of them, such as {tmp_path}/two/a$"
    with pytest.raises(HvxError, match=several):
        run_folder(tmp_path / "two")
    (tmp_path / "file").touch()
    with pytest.raises(HvxError, match=rf"^{tmp_path}/file: expected a run folder, not a file$"):
        run_folder(tmp_path / "file")


@pytest.mark.parametrize("command", ["figure", "gallery", "info", "measure"])
def test_a_run_is_an_argument_by_the_folder_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    run = make_run(tmp_path / "around" / "run")
    given: list[Any] = []
    monkeypatch.setattr(main.commands[command], "callback", lambda **options: given.append(options))
    output = ["-o", "x.png"] if command in {"figure", "gallery"} else []
    for path in (run, tmp_path / "around"):
        done = CliRunner().invoke(main, [command, str(path), *output])
        assert done.exit_code == 0, done.output
    name = {"info": "path", "figure": "runs"}.get(command, "run")
    assert [options[name] for options in given] == [(run,) if command == "figure" else run] * 2


def test_info_takes_a_file_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(main.commands["info"], "callback", lambda **options: given.append(options["path"]))
    (tmp_path / "m.safetensors").touch()
    CliRunner().invoke(main, ["info", str(tmp_path / "m.safetensors")])
    assert given == [tmp_path / "m.safetensors"]


# What is missing


MISSING = {
    ("explain", "NO"): "config file",
    ("config", "show", "NO"): "config file",
    ("config", "show", "NO", "--json"): "config file",
    ("train", "NO"): "config file",
    ("info", "NO"): "run folder or checkpoint",
    ("info", "NO", "--verify"): "run folder or checkpoint",
    ("figure", "NO", "-o", "a.png"): "run folder",
    ("gallery", "NO", "-o", "a"): "run folder",
    ("measure", "NO"): "run folder",
    ("measure", "run", "--human", "NO"): "folder of human attention maps",
    ("ask", "NO", "file", "what?", "-o", "a.png"): "checkpoint",
    ("ask", "file", "NO", "what?", "-o", "a.png"): "image",
    ("import", "torch7", "NO", "file", "--backbone", "b", "-o", "a"): "file",
    ("import", "torch7", "file", "NO", "--backbone", "b", "-o", "a"): "file",
    ("import", "vqa-pytorch", "NO", "--backbone", "b", "-o", "a"): "folder",
    ("import", "vqa-pytorch", "run", "--options", "NO", "--backbone", "b", "-o", "a"): "options file",
    ("import", "vqa-pytorch", "run", "--vocabulary", "NO", "--backbone", "b", "-o", "a"): (
        "folder of vocabularies"
    ),
    ("import", "fbresnet152", "NO", "-o", "a"): "file",
    ("import", "skipthoughts", "NO", "-o", "a"): "folder",
}
WRONG = {
    ("ask", "file", "file", "what?", "-o", "a.jpg"): "a.jpg: a figure is written as .png, .pdf or .svg",
    ("ask", "file", "file", "what?", "-o", "a.png", "--device", "gpu"): (
        "--device gpu: expected auto, cpu, cuda or cuda:i"
    ),
    ("ask", "file", "file", "what?", "-o", "a.png", "--inches", "1", "--dpi", "50"): (
        "--inches 1 at --dpi 50: 50 pixels; a figure is 300 to 20000 wide"
    ),
    ("figure", "run", "-o", "a.jpg"): "a.jpg: a figure is written as .png, .pdf or .svg",
    ("figure", "run", "-o", "a.png", "--id", "1", "--rows", "2"): "--id 1: goes with no other choice of rows",
    ("figure", "run", "-o", "a.png"): "run/run.json: ",
    ("info", "run"): "run/run.json: ",
    ("gallery", "file", "-o", "a"): "file: expected a run folder, not a file",
    ("gallery", "empty", "-o", "a"): "empty: not a run folder",
    ("explain", "file"): "file: expected a mapping of keys",
    ("explain", "file", "--device", "gpu"): "--device gpu: expected auto, cpu, cuda or cuda:i",
    ("explain", "file", "--workers", "2"): "--workers is for --engine ray",
    ("explain", "file", "--engine", "ray", "--device", "cpu"): "--device cpu is for --engine local",
    ("train", "file"): "file: expected a mapping of keys",
    ("config", "show", "file"): "file: expected a mapping of keys",
    ("config", "show", "file", "--set", "seed"): "file: expected a mapping of keys",
    ("config", "schema", "-o", "run"): "run: cannot be written: is a folder",
    ("config", "schema", "file"): "unexpected extra argument",
    ("config", "shwo"): "No such command",
    ("train", "file", "--device", "gpu"): "--device gpu: expected auto, cpu, cuda or cuda:i",
    ("measure", "run", "--device", "gpu"): "--device gpu: expected auto, cpu, cuda or cuda:i",
    ("reproduce", "--device", "gpu"): "--device gpu: expected auto, cpu, cuda or cuda:i",
    ("no-such-command",): "No such command",
    ("figure", "run"): "Missing option",
    ("figure", "run", "-o", "a.png", "--rows", "0"): "Invalid value for '--rows'",
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file, an empty folder, and a run of an empty description; the current one."""
    make_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("line", MISSING, ids=" ".join)
def test_what_is_missing_is_named(files: Path, line: tuple[str, ...]) -> None:
    assert error_of(hvx(*line)) == f"NO: no such {MISSING[line]}"
    named = [f"file/{part}" if part == "NO" else part for part in line]  # below what is no folder
    assert error_of(hvx(*named)) == f"file/NO: no such {MISSING[line]}"
    long = ["n" * 300 if part == "NO" else part for part in line]
    assert error_of(hvx(*long)).startswith(f"{'n' * 300}: cannot be read ({MISSING[line]}): ")
    assert sorted(path.name for path in files.iterdir()) == ["empty", "file", "run"]


CHECKED = """
import json, sys
from click.testing import CliRunner
from hvx.cli import main
said = []
for line in json.load(sys.stdin):
    done = CliRunner().invoke(main, line)
    imported = sorted({"torch", "torchvision", "matplotlib.pyplot"} & set(sys.modules))
    said.append([done.exit_code, done.stderr, imported])
print(json.dumps(said))
"""


def test_no_wrong_argument_and_no_help_imports_pytorch(files: Path) -> None:
    """It takes seconds; one process runs all lines, so the first that imports it fails all that follow."""
    helps = [[*words, "-h"] for words in commands()]
    lines = [*map(list, MISSING), *map(list, WRONG), *helps, ["--version"]]
    done = subprocess.run(
        [sys.executable, "-c", CHECKED], input=json.dumps(lines), capture_output=True, text=True, check=True
    )
    said = dict(zip(map(tuple, lines), json.loads(done.stdout), strict=True))
    assert {line: imported for line, (_, _, imported) in said.items() if imported} == {}
    for line, expected in WRONG.items():
        status, stderr, _ = said[line]
        assert (status, expected in stderr) == (2, True), (line, stderr)
    for line in helps:
        assert said[tuple(line)][0] == 0


DESCRIBED = """
import sys
from click.testing import CliRunner
from hvx.cli import main
for path in sys.argv[1:]:
    print(CliRunner().invoke(main, ["info", path]).output)
    print(sorted({"torch", "torchvision", "numpy"} & set(sys.modules)))
"""


def test_info_of_a_run_and_of_a_checkpoint_needs_no_pytorch(tiny: Tiny, finished_run: Path) -> None:
    command = [sys.executable, "-c", DESCRIBED, str(tiny.root / "model.safetensors"), str(finished_run)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"run:          {finished_run}\n" in done.stdout
    assert "model:        MLB, form paper, 2 glimpses, joint 20 wide\n" in done.stdout
    checkpoint, _, run = done.stdout.partition("\n[]\n")  # nor does it need NumPy for a checkpoint
    assert checkpoint.startswith("checkpoint: ") and run.endswith("\n['numpy']\n")


# Examples


def examples() -> list[tuple[str, ...]]:
    """Every line of a help text that shows a command."""
    found = []
    for command in commands().values():
        for line in re.findall(r"^ *(hvx .+)$", command.help or "", re.MULTILINE):
            words = shlex.split(re.split(r" {3,}", line)[0])
            found.append(tuple(words[1:]))
    return list(dict.fromkeys(found))


EXAMPLES = examples()


def test_every_command_has_an_example() -> None:
    shown = {
        next(words for words in commands() if words and line[: len(words)] == words) for line in EXAMPLES
    }
    assert {words[0] for words in shown} == set(main.commands)
    for words, command in commands().items():
        if not isinstance(command, click.Group):
            assert f"hvx {' '.join(words)}" in (command.help or ""), words
    assert len(EXAMPLES) > 20


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the examples name: the project's configs, the runs that these make, and files of the user."""
    shutil.copytree(REPOSITORY / "configs", tmp_path / "configs")
    for config in (tmp_path / "configs").glob("*.yaml"):
        tree = yaml.safe_load(config.read_text(encoding="utf-8"))
        make_run(tmp_path / tree.get("root", ".") / tree["explain"]["run"])
    (tmp_path / "run").rename(tmp_path / "run of scenes")  # it lies in the folder that hvx reproduce makes
    make_run(tmp_path / "runs" / "reproduce" / "run")
    for name in ("mlb", "dan", "other"):  # models to compare
        make_run(tmp_path / "runs" / name / "run")
    for name in (
        "model.safetensors",
        "photo.jpg",
        "mlb.t7",
        "mrn.t7",
        "data_prepro.json",
        "fbresnet152-2e20f6b4.pth",
    ):
        (tmp_path / name).touch()
    for name in ("logs/mlb_att", "skip-thoughts"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("line", EXAMPLES, ids=" ".join)
def test_an_example_is_accepted_and_names_what_the_configs_make(
    project: Path, monkeypatch: pytest.MonkeyPatch, line: tuple[str, ...]
) -> None:
    words = max((words for words in commands() if line[: len(words)] == words), key=len)
    called: list[dict[str, Any]] = []
    command = commands()[words]
    monkeypatch.setattr(command, "callback", lambda **options: called.append(options))
    done = CliRunner().invoke(main, list(line))
    assert done.exit_code == 0, done.output
    if "-h" not in line:
        (options,) = called
        for run in options.get("runs") or [options.get("run") or options.get("path")]:
            assert run is None or str(run) in line  # the run itself, not the folder around it


RUN_HERE = [line for line in EXAMPLES if line[0] in {"figure", "gallery", "info", "ask"} and "17" not in line
            and "runs/paper_figures" not in line]  # fmt: skip


def test_examples_do_what_they_show(
    tiny: Tiny, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The examples of commands over a run or a checkpoint, on a small run and its checkpoint."""
    assert len(RUN_HERE) == 13
    for name in ("daquar", "other"):
        shutil.copytree(finished_run, tmp_path / "runs" / name / "run")
    shutil.copy(tiny.root / "model.safetensors", tmp_path / "model.safetensors")
    photo = sorted((tiny.root / "scenes" / "images").glob("*.png"))[0]
    with Image.open(photo) as image:
        image.convert("RGB").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    for line in RUN_HERE:
        done = hvx(*line)
        assert done.returncode == 0, (line, done.stderr)
        assert done.stdout
        if "-o" in line:
            output = Path(line[line.index("-o") + 1])
            assert output.stat().st_size > 0
            assert str(output) in done.stdout
