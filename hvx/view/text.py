"""Text: which fonts draw it, how wide it is, where it breaks into lines.

Text is drawn in DejaVu Sans, which comes with Matplotlib, so that figures look the same on every machine.
Characters that it lacks are drawn in fonts of the extra ``fonts`` or of the system. Matplotlib joins letters
and orders right-to-left text. Characters in no font are drawn as boxes; ``missing_glyphs`` returns them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager, get_font
from matplotlib.ft2font import FaceFlags, FT2Font, LoadFlags

BOX = "□"
"""Replaces a character that no font has."""

MAIN = "DejaVu Sans"

_MEASURED = 100
"""Text is measured at this size and scaled: without hinting, widths are proportional to the size."""
_UNWANTED = ("bold", "italic", "oblique", "black", "heavy", "light", "thin", "condensed", "mono", "display")
"""Parts of the file names of font styles other than the regular one."""
_SUFFIXES = {".ttf", ".otf", ".ttc"}
_VIRAMA = 9
"""The combining class of the virama, which joins two consonants in Indic scripts."""


def families(text: str) -> tuple[str, ...]:
    """The font families that together cover a text, as Matplotlib's fallback list; DejaVu Sans first."""
    names = dict.fromkeys([MAIN])
    for word in text.split():
        names.update(dict.fromkeys(family for family in _word_families(word) if family))
    return tuple(names)


def width(line: str, size: float) -> float:
    """The width of a line of text, in the unit of the font size ``size``."""
    return _width(line) * size / _MEASURED


def ascent(size: float) -> float:
    """The distance from the top of a line to its baseline."""
    font = _fonts((MAIN,))
    return font.ascender / font.units_per_EM * size


def line_height(size: float) -> float:
    """The distance from one line of text to the next."""
    return ascent(size) - _fonts((MAIN,)).descender / _fonts((MAIN,)).units_per_EM * size


def wrap(text: str, size: float, max_width: float) -> tuple[str, ...]:
    """Lines of text no wider than ``max_width``; a wider word is broken between its characters."""
    lines = [""]
    for word in boxed(text).split():
        joined = f"{lines[-1]} {word}".lstrip()
        if width(joined, size) <= max_width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for cluster in clusters(word):
            if lines[-1] and width(lines[-1] + cluster, size) > max_width:
                lines.append("")
            lines[-1] += cluster
    return tuple(lines)


def unbroken(texts: Iterable[str], size: float, max_width: float) -> float:
    """``size``, or a smaller one at which no word is wider than ``max_width``."""
    widest = max((width(word, size) for text in texts for word in text.split()), default=0)
    return size * min(1, max_width / widest) if widest else size


def shorten(text: str, size: float, max_width: float) -> str:
    """The text on one line; if it is wider than ``max_width``, an ellipsis replaces its end."""
    line = " ".join(boxed(text).split())
    if width(line, size) <= max_width:
        return line
    characters = clusters(line)
    while characters and width("".join(characters) + "…", size) > max_width:
        characters.pop()
    return "".join(characters).rstrip() + "…"


def boxed(text: str) -> str:
    """The text as it is drawn: a box replaces each character that no font has."""
    if all(_word_families(word) for word in text.split()):
        return text
    return "".join(char if char.isspace() or _word_families(char) else BOX for char in clusters(text))


def missing_glyphs(texts: Iterable[str]) -> str:
    """The characters of the texts that no font here has, each once, sorted."""
    words = {word for text in texts for word in text.split() if not _word_families(word)}
    return "".join(sorted({char for word in words for char in clusters(word) if not _word_families(char)}))


def clusters(text: str) -> list[str]:
    """Grapheme clusters: a letter with its marks, an emoji of several parts."""
    parts: list[str] = []
    for character in text:
        if parts and _extends_cluster(parts[-1], character):
            parts[-1] += character
        else:
            parts.append(character)
    return parts


def is_right_to_left(text: str) -> bool:
    """Whether the first letter with a direction is right-to-left, as in Arabic and Hebrew."""
    directions = (unicodedata.bidirectional(character) for character in text)
    return next((direction != "L" for direction in directions if direction in ("L", "R", "AL")), False)


def _extends_cluster(before: str, character: str) -> bool:
    """Whether a character belongs to the cluster before it (the main rules of Unicode's annex 29)."""
    last, kind = before[-1], unicodedata.category(character)
    if kind.startswith("M") or _is_formatting(character):
        return True
    if (last == "\u200d" and kind == "So") or (unicodedata.combining(last) == _VIRAMA and kind == "Lo"):
        return True  # emoji of several parts, consonants joined by a sign
    if all("\U0001f1e6" <= letter <= "\U0001f1ff" for letter in (last, character)):
        return len(before) == 1  # two regional indicators are one flag
    return "\U0001f3fb" <= character <= "\U0001f3ff" or "\u1100" <= last <= character <= "\u11ff"


def _is_formatting(character: str) -> bool:
    """Whether a character only changes how its neighbors are drawn: a joiner or variation selector."""
    return unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f"


@lru_cache(4096)
def _width(line: str) -> float:
    font = _fonts(families(line))
    font.set_size(_MEASURED, 72)
    font.set_text(line, 0, LoadFlags.NO_HINTING)
    return font.get_width_height()[0] / 64


@lru_cache(256)
def _fonts(names: tuple[str, ...]) -> FT2Font:
    """A font with fallback families."""
    return get_font([_font_file(name) for name in names])


@lru_cache(4096)
def _word_families(word: str) -> tuple[str, ...]:
    """The families that draw a word, one if possible; empty if some character is in no font."""
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in word):
        return ()
    needed = frozenset(ord(character) for character in word if not _is_formatting(character))
    missing = needed - _characters(_font_file(MAIN))
    if not missing:
        return (MAIN,)
    common = _family_of(missing)
    each = [common] if common else [_family_of(frozenset([code])) for code in sorted(missing)]
    return tuple(family for family in each if family) if all(each) else ()


def _font_file(family: str) -> str:
    """The file of a family's regular style, independent of matplotlibrc."""
    cut = FontProperties(family=[family], style="normal", variant="normal", weight="normal", stretch="normal")
    return findfont(cut, fallback_to_default=False)


@lru_cache(4096)
def _family_of(characters: frozenset[int]) -> str | None:
    """The first family, besides DejaVu Sans, that has all of these characters."""
    for path in _other_files():
        if characters <= _characters(path):
            if path not in {entry.fname for entry in fontManager.ttflist}:
                fontManager.addfont(path)
            # Matplotlib may know the family by another file, with another style and other characters.
            for family in {entry.name: None for entry in fontManager.ttflist if entry.fname == path}:
                if characters <= _characters(_font_file(family)):
                    return family
    return None


@lru_cache
def _characters(path: str) -> frozenset[int]:
    """The code points that a font file draws as outlines; empty if it cannot be read."""
    try:
        font = get_font(path)
    except (OSError, RuntimeError, ValueError):
        return frozenset()
    return frozenset(font.get_charmap() if FaceFlags.SCALABLE in font.face_flags else ())


@lru_cache
def _other_files() -> list[str]:
    """Font files of Python packages and of the system, those most similar to DejaVu Sans first."""
    paths = [*_package_fonts(), *map(Path, findSystemFonts())]
    fonts = [path for path in paths if path.suffix.lower() in _SUFFIXES]
    return [str(path) for path in sorted(dict.fromkeys(fonts), key=_unsuitability)]


def _package_fonts() -> Iterator[Path]:
    """Font files of installed packages of the fontpkg family."""
    for point in entry_points(group="fontpkg.family"):
        spec = find_spec(point.module)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            yield from sorted(Path(folder).rglob("*.ttf"))


def _unsuitability(path: Path) -> tuple[int, bool, str]:
    """How much a font differs from a plain sans serif, judged by its file name."""
    # Brackets hold the axes of a variable font, which is drawn in its regular style.
    name = path.stem.partition("[")[0].lower()
    return sum(part in name for part in _UNWANTED), "sans" not in name, path.name
