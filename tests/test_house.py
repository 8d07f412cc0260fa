"""The house's own rules: data moves forward only, so that no stage imports a later one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "hvx"
GROUND = {
    "cpu_count",
    "errors",
    "extras",
    "files",
    "progress",
    "device",
    "device_name",
    "strict_yaml",
    "table",
    "terminal",
    "threads",
}
"""What every stage may use; these import nothing of hvx but one another."""
ORDER = [
    "config",
    "config_schema",
    "data",
    "models",
    "importers",
    "explain",
    "store",
    "run",
    "view",
    "capture",
    "adapters",
    "measure",
    "compare",
    "select_items",
    "figures",
    "gallery",
    "train",
    "checkpoint_info",
    "info",
    "check",
    "opened_run",
    "api",
    "ask",
    "reproduce_checks",
    "reproduce",
    "cli",
]


def _stage(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported(path: Path) -> set[str]:
    """Stages that a file imports from, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("hvx."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {name.name.split(".")[1] for name in node.names if name.name.startswith("hvx.")}
    return found


FACES = {"__main__", "__init__"}
"""What leads into the package: the command, and the names that it hands on from its stages."""
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if _stage(path) not in FACES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_stage_imports_only_itself_and_earlier_ones(path: Path) -> None:
    stage = _stage(path)
    earlier = set() if stage in GROUND else set(ORDER[: ORDER.index(stage) + 1])
    assert _imported(path) <= earlier | GROUND


def test_every_stage_has_a_place_in_the_order() -> None:
    stages = {_stage(path) for path in FILES} - GROUND
    assert stages == set(ORDER)


PRINTING = {"hvx/terminal.py"}
"""The one place that prints: it makes each line safe for a terminal."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_terminal_module_prints(path: Path) -> None:
    """Texts of files and checkpoints must not reach the terminal as they are."""
    if path.relative_to(PACKAGE.parent).as_posix() in PRINTING:
        return
    calls = [node.func for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
    names = {ast.unparse(call) for call in calls}
    assert not names & {"print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write"}
