"""File systems without locks, modes or flushes, and tight limits: commands work, or say why not."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Tiny

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
static int fails(const char *name) {
  const char *value = getenv(name);
  if (value) errno = atoi(value);
  return value != NULL;
}
#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))
int flock(int fd, int how) { return fails("NO_LOCKS") ? -1 : REAL(flock)(fd, how); }
static int locks(int call) { return call == F_SETLK || call == F_SETLKW; }
#define FCNTL(name) int name(int fd, int call, ...) { \
  va_list given; va_start(given, call); void *value = va_arg(given, void *); va_end(given); \
  if (locks(call) && fails("NO_LOCKS")) return -1; \
  return ((int (*)(int, int, ...))dlsym(RTLD_NEXT, #name))(fd, call, value); }
FCNTL(fcntl)
FCNTL(fcntl64)
int chmod(const char *path, mode_t mode) { return fails("NO_MODES") ? -1 : REAL(chmod)(path, mode); }
int fchmod(int fd, mode_t mode) { return fails("NO_MODES") ? -1 : REAL(fchmod)(fd, mode); }
int fchmodat(int fd, const char *path, mode_t mode, int how) {
  return fails("NO_MODES") ? -1 : REAL(fchmodat)(fd, path, mode, how); }
int fsync(int fd) { return fails("NO_FLUSH") ? -1 : REAL(fsync)(fd); }
"""

COMMANDS = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from hvx.cli import main
config, root, into, *which = sys.argv[1:]
run = f"{into}/run"
own = ["--set", f"root={root}", "--set", "explain.workers=0", "--set", "train.workers=0"]
commands = {
    "explain": ["explain", config, *own, "--set", f"explain.run={run}"],
    "figure": ["figure", run, "-o", f"{into}/figure.png", "--rows", "1"],
    "gallery": ["gallery", run, "-o", f"{into}/pages", "--workers", "1"],
    "measure": ["measure", run, "--sample", "4", "--curves", "0", "--sanity", "0", "--methods", "gradient"],
    "train": ["train", config, *own, "--set", f"checkpoint={into}/model.safetensors"],
}
for name in which:
    main(commands[name], standalone_mode=False)
print("all done")
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("no C compiler on Linux here")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    built = folder / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", built, folder / "shim.c", "-ldl"], check=True)
    return built


def commands(
    tiny: Tiny, into: Path, shim: Path, which: list[str], **lacks: int
) -> subprocess.CompletedProcess[str]:
    own = {name: str(number) for name, number in lacks.items()}
    return subprocess.run(
        [sys.executable, "-c", COMMANDS, str(tiny.config), str(tiny.root), str(into), *which],
        env={**os.environ, "OMP_NUM_THREADS": "1", "LD_PRELOAD": str(shim), **own},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def test_without_locks_modes_and_flushes_all_commands_work(tiny: Tiny, tmp_path: Path, shim: Path) -> None:
    which = ["explain", "figure", "gallery", "measure", "train"]
    lacks = {"NO_LOCKS": errno.ENOLCK, "NO_MODES": errno.EPERM, "NO_FLUSH": errno.EINVAL}
    done = commands(tiny, tmp_path, shim, which, **lacks)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("all done\n")
    said = "the file system has no locks (No locks available); let no other process write this run"
    assert f"{tmp_path / 'run'}: {said}\n" in done.stderr
    for name in ("run/explanations.h5", "figure.png", "pages/index.html", "run/measure/measure.md",
                 "model.safetensors"):  # fmt: skip
        assert (tmp_path / name).is_file(), name
    assert not list(tmp_path.rglob("*.damaged")) and not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_fails_at_the_flush_is_said(tiny: Tiny, tmp_path: Path, shim: Path, number: int) -> None:
    done = commands(tiny, tmp_path, shim, ["explain"], NO_FLUSH=number)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"run.json: cannot be written: {os.strerror(number)}")
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("limit", "value", "said"),
    [
        (resource.RLIMIT_AS, 1_500_000_000, "Error: too little memory, or a broken installation: "),
        (
            resource.RLIMIT_NOFILE,
            10,
            "Error: an image-decoding process cannot be started (Too many open files)",
        ),
    ],
)
def test_a_tight_limit_is_one_line(tiny: Tiny, tmp_path: Path, limit: int, value: int, said: str) -> None:
    settings = [part for s in tiny.settings(tmp_path / "run", explain__workers=1) for part in ("--set", s)]
    done = subprocess.run(
        [sys.executable, "-m", "hvx", "explain", str(tiny.config), *settings],
        preexec_fn=lambda: resource.setrlimit(limit, (value, value)),
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said) and done.stderr.count("\n") == 1, done.stderr
    assert not list(tmp_path.rglob("*.part"))
