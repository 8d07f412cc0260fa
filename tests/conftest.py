"""What several test files share."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import torch
import yaml
from click.testing import CliRunner
from hypothesis import settings

from hvx.cli import main
from hvx.config import Config, load
from hvx.data.scenes import write_scenes
from hvx.run.explain import explain_split
from hvx.run.local import local_engine
from hvx.train.trainer import train_model

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"


# The same examples on every machine and in every run, so that a failure comes from the change at hand.
# HYPOTHESIS_PROFILE=default searches for new ones.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

for _name in main.list_commands(click.Context(main)):
    main.get_command(click.Context(main), _name)  # tests look into the commands, which are imported when used

SLOWEST = ["test_ray.py", "test_reproduce.py", "test_cli.py", "test_fused_engine.py", "test_ray_engine.py"]
"""Files that start first, so that no process is left alone with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests: those of the slowest files first, all others as they were."""
    ranks = {name: rank for rank, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(SLOWEST)))


THREADS = 1
"""Two processes of tests run side by side; and with other threads, sums differ in their last bits."""
torch.set_num_threads(THREADS)  # for fixtures that are made before the first test


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(THREADS)


@pytest.fixture(autouse=True)
def _usual_handlers() -> Iterator[None]:
    """As in a terminal: what a shell starts in the background ignores Ctrl-C, and its processes, too."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared with its data here")
    return SHARED


@dataclass(frozen=True)
class Done:
    """What a command of hvx did."""

    returncode: int
    stdout: str
    stderr: str


def hvx(*arguments: object, cwd: Path | None = None) -> Done:
    """Run a command in this process, which has imported PyTorch already; what it raises is raised."""
    with contextlib.chdir(cwd or Path.cwd()):
        done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Done(done.exit_code, done.stdout, done.stderr)


def hvx_process(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does, in a process of its own."""
    command = [sys.executable, "-m", "hvx", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@dataclass(frozen=True)
class Tiny:
    """A small built-in split with a model trained on it for a moment."""

    root: Path
    config: Path

    def settings(self, run: Path, **more: object) -> list[str]:
        """Overrides that point the config here, and at a run folder of one's own."""
        own = {"root": self.root, "explain.run": run, **{k.replace("__", "."): v for k, v in more.items()}}
        return [f"{key}={value}" for key, value in own.items()]

    def load(self, run: Path, **more: object) -> Config:
        return load(self.config, self.settings(run, **more))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    root = tmp_path_factory.mktemp("tiny")
    write_scenes(root / "scenes", 24, 8, 64, 0)
    tree = yaml.safe_load((REPOSITORY / "configs" / "scenes.yaml").read_text())
    tree["model"] |= {"image": {"size": 64}, "encoder": {"embedding": 8, "hidden": 12}, "joint": 10}
    tree["train"] |= {"epochs": 1, "backbone_epochs": 1}
    tree["explain"] |= {"batch_images": 3, "shard_questions": 12, "workers": 0}
    config = root / "config.yaml"
    config.write_text(yaml.safe_dump(tree))
    made = Tiny(root, config)
    train_model(made.load(root / "unused"), torch.device("cpu"))
    return made


@pytest.fixture(scope="session")
def finished_run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run over the tiny split; tests do not change it."""
    run = tmp_path_factory.mktemp("finished") / "run"
    explain_split(tiny.load(run, explain__gradient=True), local_engine(torch.device("cpu")))
    return run
