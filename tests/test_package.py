"""What is published: metadata, wheel, source distribution, hosted CI and hooks say what the project says."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY

import hvx

FOLDERS = [".github", "configs", "docs", "hvx", "scripts", "tests"]
SETUP = configparser.ConfigParser()
SETUP.read(REPOSITORY / "setup.cfg")
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
BUILD = """
import sys
from setuptools import build_meta
folder = sys.argv[1]  # which building overwrites
build_meta.build_sdist(folder)
build_meta.build_wheel(folder)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution, made by the build system as `make wheel` does."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for path in REPOSITORY.iterdir():
        if path.is_file():
            shutil.copy(path, source)
        elif path.name in FOLDERS:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(path, source / path.name, symlinks=True, ignore=ignored)
    command = [sys.executable, "-c", BUILD, str(made)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return made


def files(folder: str, *patterns: str) -> set[str]:
    """The repository's own files below a folder, as an archive names them."""
    paths = {path for pattern in patterns for path in (REPOSITORY / folder).rglob(pattern)}
    return {path.relative_to(REPOSITORY).as_posix() for path in paths if path.is_file()}


def test_the_wheel_holds_the_package_and_what_it_reads(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert files("hvx", "*.py") | files("hvx/gallery/static", "*") | files("hvx/measure", "*.json") <= names
    assert {f"hvx/{name}" for name in files("configs", "*.yaml")} <= names
    assert "hvx/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"hvx", f"hvx-{hvx.__version__}.dist-info"}


def test_the_source_distribution_holds_what_tests_and_docs_need(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.split("/", 1)[1] for name in tar.getnames() if "/" in name}
    wanted = files("tests", "*.py", "*.png") | files("docs", "*.md", "*.png", "*.py", "*.ipynb")
    wanted |= files("configs", "*.yaml") | files("scripts", "*.py") | {".github/workflows/ci.yml"}
    wanted |= {path.name for path in REPOSITORY.glob("*.md")} | {"Makefile", "LICENSE", "CITATION.cff"}
    wanted |= {"setup.cfg", "pyproject.toml", "mkdocs.yml", ".pre-commit-config.yaml"}
    assert wanted <= names
    assert not [name for name in names if "__pycache__" in name]


def test_the_version_is_that_of_the_changelog_and_the_citation() -> None:
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    newest = re.search(r"^## (\d\S*) \((\d{4}-\d{2}-\d{2})\)$", changelog, re.MULTILINE)
    assert newest, "no dated version"
    assert newest.groups() == (hvx.__version__, str(citation["date-released"]))
    assert str(citation["version"]) == hvx.__version__


# Hosted CI


def workflow() -> dict[str, Any]:
    text = (REPOSITORY / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    jobs: dict[str, Any] = yaml.safe_load(text)["jobs"]
    return jobs


def test_ci_runs_make_targets_that_exist() -> None:
    ran = [step["run"] for job in workflow().values() for step in job["steps"] if "run" in step]
    assert all(command.startswith("make ") for command in ran)
    assert {command.split()[1] for command in ran} == {"lint", "test", "reproduce", "check-wheel"}
    assert {command.split()[1] for command in ran} <= TARGETS


def test_ci_tests_every_python_that_the_package_declares() -> None:
    declared = re.findall(r"Python :: (3\.\d+)$", SETUP["metadata"]["classifiers"], re.MULTILINE)
    assert workflow()["test"]["strategy"]["matrix"]["python"] == declared
    assert SETUP["options"]["python_requires"] == f">={declared[0]}"


def test_ci_tests_the_oldest_torch_that_the_package_declares_and_the_newest() -> None:
    least = dict(
        line.split(">=") for line in SETUP["options"]["install_requires"].split("\n") if ">=" in line
    )
    oldest = f"torch=={least['torch']}.* torchvision=={least['torchvision']}.*"
    assert workflow()["test"]["strategy"]["matrix"]["torch"] == [oldest, ""]
    assert all(one in SETUP["testenv"]["deps"] for one in oldest.split())


def test_a_torch_that_is_named_is_what_make_installs() -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make here")
    command = [make, "-n", "-W", "setup.cfg", "test", "TORCH=torch==2.11.* torchvision==0.26.*"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    installs = [line for line in done.stdout.splitlines() if " pip install " in line]
    assert len(installs) == 2
    assert all(line.endswith(" 'torch==2.11.*' 'torchvision==0.26.*'") for line in installs)


# Hooks


def test_the_hooks_are_the_tools_of_make_lint_without_a_download() -> None:
    config = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (repository,) = config["repos"]
    assert repository["repo"] == "local"
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
    entries = [hook["entry"].split() for hook in repository["hooks"]]
    tools = ("ruff", "ruff", "mypy", "python", "python")
    assert [entry[0] for entry in entries] == [f".venv/bin/{tool}" for tool in tools]
    assert all((REPOSITORY / entry[1]).is_file() for entry in entries if entry[0].endswith("python"))
