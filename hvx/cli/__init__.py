"""The command line: a page for each command; each parses, calls one function and prints."""

from __future__ import annotations

from hvx.cli.main import main

__all__ = ["main"]
