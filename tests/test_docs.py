"""The docs say what is there: the commands' help as it is, links that lead somewhere, every command."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from hvx.cli import main

PAGES = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md"))]


def test_the_page_of_the_commands_is_what_their_help_says(tmp_path: Path) -> None:
    kept = REPOSITORY / "docs" / "cli.md"
    code = "import write_cli_docs; print(write_cli_docs.page(), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY / "scripts", capture_output=True, check=True
    )
    assert done.stdout.decode("utf-8") == kept.read_text(encoding="utf-8"), (
        "docs/cli.md is not what the help says; run python scripts/write_cli_docs.py"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_the_docs_leads_to_a_file(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        assert target.startswith("https:") or (page.parent / target).exists(), target


def test_the_readme_names_every_command() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for name in main.commands:
        assert f"| `hvx {name} " in readme or f"| `hvx {name}`" in readme, name
