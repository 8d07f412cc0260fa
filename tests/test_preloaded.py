"""Preloaded processes do what plain ones do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from preloaded import Preloaded

CODES = {
    "a status": "import sys; print(sys.argv); sys.exit(3)",
    "a message": "raise SystemExit('no')",
    "an interruption": "raise KeyboardInterrupt",
    "a kill": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "input": "import sys; print(input()[::-1]); print('\\udcff', file=sys.stderr)",
    "a folder and a session": "import os; print(os.getcwd(), os.getsid(0) == os.getpid())",
    "an environment": "import os; print(os.environ['HVX_TEST'], 'HOME' in os.environ)",
    "its end": "import atexit; atexit.register(print, 'the end')",
}


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_it_does_what_a_plain_process_does(code: str, tmp_path: Path) -> None:
    def answer(kind: type[subprocess.Popen[Any]]) -> tuple[int, str, str]:
        with kind(
            [sys.executable, "-c", code, "1"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=tmp_path, env={"HVX_TEST": "x"}, start_new_session=True,
        ) as process:  # fmt: skip
            out, err = process.communicate("abc\n", timeout=60)
        return process.returncode, out, err.splitlines()[-1] if err else ""

    assert answer(Preloaded) == answer(subprocess.Popen)


def test_streams_that_the_caller_opened_stay_open(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+") as out:
        process = Preloaded(
            [sys.executable, "-c", "print(1)"],
            stdout=out,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        assert process.wait(60) == 0
        out.seek(0)
        assert out.read() == "1\n"
