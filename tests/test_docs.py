"""The docs say what is there: the commands' help as it is, links that lead somewhere, every command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from hvx.cli import main

sys.path.insert(0, str(REPOSITORY / "scripts"))
import write_cli_docs
import write_config_docs
from test_config_table import DEFAULTS

PAGES = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md"))]


def test_the_page_of_the_commands_is_what_their_help_says() -> None:
    page = (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8")
    assert write_cli_docs.page() == page, "run python scripts/write_cli_docs.py"


def test_the_page_of_the_config_is_what_its_types_and_docstrings_say() -> None:
    page = (REPOSITORY / "docs" / "config.md").read_text(encoding="utf-8")
    assert write_config_docs.page() == page, "run python scripts/write_config_docs.py"


def test_the_page_of_the_config_has_every_key_once() -> None:
    page = (REPOSITORY / "docs" / "config.md").read_text(encoding="utf-8").partition("## Presets")[0]
    keys = [key.replace("splits.val.", "splits.NAME.").replace(".0.", ".N.") for key in DEFAULTS]
    for key in set(keys) - {"dual_encoder"}:
        rows = [line for line in page.splitlines() if line.startswith(f"| `{key}` |")]
        assert len(rows) == 1 + (key == "model.network"), key  # of a dual encoder, too
        assert len(rows[0].split(" | ")) == 4 and rows[0].endswith(". |"), key
    assert "| `train.rate` | number (more than 0 and at most 100) | `0.001` | Highest learning rate" in page
    assert "| `explain.run` | path | *required* | The run folder" in page


def test_the_sections_of_the_config_page_are_linked() -> None:
    page = (REPOSITORY / "docs" / "config.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## (.+)$", page, re.MULTILINE)
    anchors = {re.sub(r"[`.]", "", head).lower().replace(" ", "-") for head in heads}
    assert len(anchors) == len(heads)
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= anchors


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_the_docs_leads_to_a_file(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        assert target.startswith("https:") or (page.parent / target).exists(), target


def test_the_readme_names_every_command() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for name in main.commands:
        assert f"| `hvx {name} " in readme or f"| `hvx {name}`" in readme, name


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_line_for_each_shell_completes_commands(shell: str) -> None:
    page = (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8")
    variable = f"_HVX_COMPLETE={shell}_"
    assert f"{variable}source hvx" in page
    words = {"COMP_WORDS": "hvx repr", "COMP_CWORD": "repr" if shell == "fish" else "1"}
    command = [sys.executable, "-c", "from hvx.cli import main; main(prog_name='hvx')"]
    said = {}
    for what in ("source", "complete"):
        environment = os.environ | words | {"_HVX_COMPLETE": f"{shell}_{what}"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if shell == "bash" and "Shell completion is not supported" in done.stderr:
            pytest.skip("no bash 4.4 here")
        said[what] = done.stdout
    assert f"{variable}complete" in said["source"]
    assert re.findall(r"\b(?:reproduce|explain)\b", said["complete"].split("\n\n")[0])[:1] == ["reproduce"]
