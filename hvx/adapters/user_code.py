"""A user's file with a function, named on the command line; read once, so that the digest is of what ran."""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from hvx.adapters.adapter import Adapter
from hvx.errors import HvxError, Interrupted, OutOfMemory, did_you_mean


@dataclass(frozen=True)
class UserCode:
    """A function in a file.

    Attributes:
        file: its path, absolute.
        function: its name.
    """

    file: Path
    function: str

    @property
    def name(self) -> str:
        """The name in errors."""
        return f"{self.file}:{self.function}"

    @classmethod
    def parsed(cls, text: str) -> UserCode:
        """``FILE.py:FUNCTION``.

        Raises:
            HvxError: the text has another form, or there is no such file.
        """
        path, colon, function = text.rpartition(":")
        if not colon or not function.isidentifier() or not path:
            raise HvxError(f"--model {text}: expected FILE.py:FUNCTION, such as model.py:adapter")
        file = Path(path).expanduser()
        if file.suffix != ".py":
            raise HvxError(f"--model {text}: expected a Python file, FILE.py:FUNCTION; {file.name} is none")
        if not file.is_file():
            raise HvxError(f"{file}: no such file (--model)")
        return cls(file.absolute(), function)

    def loaded(self, seed: int) -> tuple[Adapter, str]:
        """The function's return value, and the SHA-256 of the file's bytes that ran.

        The function's random numbers are seeded, so that weights that it does not load are the same in each
        process.

        Raises:
            HvxError: the file cannot be read, it or the function raises, or does not return an ``Adapter``.
        """
        try:
            data = self.file.read_bytes()
        except OSError as error:
            raise HvxError(f"{self.file}: cannot be read: {error.strerror or error}") from None
        with self.told(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            function = getattr(self._run(data), self.function, None)
            if callable(function):
                return self._checked(function()), hashlib.sha256(data).hexdigest()
        raise HvxError(f"{self.file}: no function '{self.function}'{self._suggestion(data)}")

    def _run(self, data: bytes) -> ModuleType:
        """The file as a module; like a script, it may import modules from its own folder."""
        module = ModuleType(f"hvx_user_{self.file.stem}")
        module.__file__ = str(self.file)
        sys.modules[module.__name__] = module  # dataclasses and pickle look up a class's module
        folder = str(self.file.parent)
        if folder not in sys.path:
            sys.path.insert(0, folder)
        exec(compile(data, str(self.file), "exec"), vars(module))  # what --model asks for
        return module

    def _suggestion(self, data: bytes) -> str:
        import ast

        return did_you_mean(
            self.function, [node.name for node in ast.parse(data).body if isinstance(node, ast.FunctionDef)]
        )

    def _checked(self, adapter: Any) -> Adapter:
        if not isinstance(adapter, Adapter):
            raise HvxError(f"returned {type(adapter).__name__}; expected an hvx.Adapter")
        fault = adapter.fault()
        if fault:
            raise HvxError(fault)
        return adapter

    @contextmanager
    def told(self) -> Iterator[None]:
        """Turn errors from the user's code, or about it, into one line with file and function.

        Raises:
            OutOfMemory: a device has too little memory.
            HvxError: anything else; the original error is its cause, which ``--debug`` shows.
        """
        try:
            yield
        except (OutOfMemory, Interrupted):
            raise
        except HvxError as error:
            raise HvxError(f"{self.name}: {error}") from error
        except (Exception, SystemExit) as error:
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                raise OutOfMemory(
                    f"{self.name}: not enough memory; give a smaller explain.batch_images"
                ) from None
            message = " ".join(str(error).split())[:300]
            raise HvxError(f"{self.name}: {type(error).__name__}: {message}{self._line(error)}") from error

    def _line(self, error: BaseException) -> str:
        """The line in the file, if the error comes from the file."""
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(self.file)
        ]
        return f" (line {lines[-1]})" if lines else ""
