"""The packages that only some commands need: the extras of setup.cfg.

They are imported where they are used, after ``require`` has checked that they are installed.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

from hvx.errors import HvxError

_MODULES = {
    "figures": ("matplotlib", "contourpy", "scipy"),
    "measure": ("captum", "matplotlib", "scipy", "skimage", "textblob"),
}
"""The modules of an extra that is needed as a whole."""
_NAMES = {
    "captum": "Captum", "matplotlib": "Matplotlib", "open_clip": "open_clip_torch", "ray": "Ray",
    "scipy": "SciPy", "skimage": "scikit-image", "textblob": "TextBlob",
}  # fmt: skip
"""Module → the name that people use, if it is another one."""


def require(extra: str, what: str, *modules: str, hint: str = "") -> None:
    """Reject what needs an extra that is not installed, before any work is done.

    Args:
        extra: its name in setup.cfg; several with a comma between them.
        what: the command, the option or the file that needs it.
        modules: those needed; all of the extra if none is given.
        hint: the end of the line: what else can be done.

    Raises:
        HvxError: names the packages that are absent, and says what to install.
    """
    if line := lacking(extra, what, *modules, hint=hint):
        raise HvxError(line)


def lacking(extra: str, what: str, *modules: str, hint: str = "") -> str:
    """The line that ``require`` raises; "" if all modules are installed."""
    wanted = modules or [module for name in extra.split(",") for module in _MODULES[name]]
    absent = [_NAMES.get(module, module) for module in dict.fromkeys(wanted) if not _is_installed(module)]
    if not absent:
        return ""
    *first, last = absent
    names = f"{', '.join(first)} and {last}" if first else last
    return f"{what} needs {names}: pip install 'hvx[{extra}]'{hint}"


def _is_installed(module: str) -> bool:
    """Whether a module can be found; it is not imported, which takes long."""
    if module in sys.modules:
        return sys.modules[module] is not None
    spec = find_spec(module)
    return spec is not None and spec.origin is not None  # a folder of this name in the path has no origin
