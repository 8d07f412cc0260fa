"""The docs say what is there: the commands' help as it is, links that lead somewhere, every command."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from hvx.cli import main

sys.path.insert(0, str(REPOSITORY / "scripts"))
import write_cli_docs

PAGES = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md"))]


def test_the_page_of_the_commands_is_what_their_help_says() -> None:
    page = (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8")
    assert write_cli_docs.page() == page, "run python scripts/write_cli_docs.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_the_docs_leads_to_a_file(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        assert target.startswith("https:") or (page.parent / target).exists(), target


def test_the_readme_names_every_command() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for name in main.commands:
        assert f"| `hvx {name} " in readme or f"| `hvx {name}`" in readme, name
