"""Type: which face draws which character, and how wide a line of text gets.

Latin text is drawn in the face that comes with Pillow, so that figures look alike on every machine; what that
lacks in DejaVu Sans, which comes with Matplotlib; the rest in whatever covers it of the fonts that the extra
``fonts`` brings and of those that the system has. What no font has is drawn as a box and can be asked for
(``undrawable``), so that a command can say so.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import regex
from PIL import ImageFont

BOX = "□"
"""Stands for a character that no font has."""

_UNWANTED = ("bold", "italic", "oblique", "black", "heavy", "light", "thin", "condensed", "mono", "display")
"""Parts of the names of files that hold other cuts of a face than its regular one."""
_SUFFIXES = {".ttf", ".otf", ".ttc"}
_WORDS = regex.compile(r"\S+|\s+")
_CLUSTERS = regex.compile(r"\X")
"""What a reader takes for one character: a letter with its marks, an emoji of several parts."""


@dataclass(frozen=True)
class Face:
    """A font file; ``path`` is None of the one that comes with Pillow. Of a collection, its first font."""

    path: Path | None = None

    @cached_property
    def data(self) -> bytes:
        """The file's bytes."""
        if self.path is not None:
            return self.path.read_bytes()
        stream = _built_in(10).path
        assert isinstance(stream, io.BytesIO)
        return stream.getvalue()

    @cached_property
    def characters(self) -> frozenset[int]:
        """The code points that it draws as outlines; none of a font that cannot be read."""
        from fontTools.ttLib import TTFont  # here and below: `hvx ask` starts sooner without

        source = io.BytesIO(self.data) if self.path is None else self.path
        try:
            with TTFont(source, fontNumber=0, lazy=True) as opened:
                outlined = any(table in opened for table in ("glyf", "CFF ", "CFF2"))
                return frozenset(opened.getBestCmap() or ()) if outlined else frozenset()
        except Exception:  # fontTools raises whatever a broken file leads it to; such a font is no help
            return frozenset()

    def covers(self, text: str) -> bool:
        return all(ord(character) in self.characters or _is_unseen(character) for character in text)

    def at(self, size: int) -> ImageFont.FreeTypeFont:
        """The face at a size in pixels."""
        return _sized(self.path, size)


Run = tuple[Face, str]
"""A piece of a line, in one face."""

PILLOWS = Face()


@lru_cache(4096)
def runs(line: str) -> tuple[Run, ...]:
    """A line of text in pieces of one face each, in the order in which they stand from left to right.

    A word is drawn in one face where any face has all of it.
    """
    pieces: list[Run] = []
    for word in _WORDS.findall(line):
        for face, part in _faced(word):
            if pieces and pieces[-1][0] == face:
                pieces[-1] = (face, pieces[-1][1] + part)
            else:
                pieces.append((face, part))
    # Within a piece, shaping sets the order; here the pieces take the order of the line's first letter.
    return tuple(reversed(pieces) if is_right_to_left(line) else pieces)


def width(line: str, size: int) -> float:
    """Of a line of text, in pixels."""
    return sum(face.at(size).getlength(part) for face, part in runs(line))


def clusters(text: str) -> list[str]:
    """What a reader takes for single characters; a line is broken between these only."""
    return list(_CLUSTERS.findall(text))


def is_right_to_left(text: str) -> bool:
    """Whether the first letter of known direction runs from right to left, as in Arabic and Hebrew."""
    directions = (unicodedata.bidirectional(character) for character in text)
    return next((way != "L" for way in directions if way in ("L", "R", "AL")), False)


def undrawable(texts: Iterable[str]) -> str:
    """The characters that no font at hand has, each once, in order."""
    missing = {part for text in texts for part in clusters(text) if part.strip() and _face_for(part) is None}
    return "".join(sorted(missing))


def _faced(word: str) -> Iterator[Run]:
    whole = _face_for(word)
    if whole:
        yield whole, word
        return
    for cluster in clusters(word):
        face = _face_for(cluster)
        yield (face, cluster) if face else (_dejavu(), BOX)


@lru_cache(4096)
def _face_for(text: str) -> Face | None:
    """The first face that has all of a text."""
    if text.isspace():
        return PILLOWS
    if any(unicodedata.category(character) == "Cc" for character in text):
        return None
    for face in (PILLOWS, _dejavu()):
        if face.covers(text):
            return face
    return next((face for face in _others() if face.covers(text)), None)


@lru_cache
def _dejavu() -> Face:
    import matplotlib

    return Face(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


@lru_cache
def _others() -> list[Face]:
    """Fonts of Python packages and of the system, those first that go best with the two at hand."""
    from matplotlib.font_manager import findSystemFonts

    found = [*_packaged(), *map(Path, findSystemFonts())]
    fitting = [path for path in found if path.suffix.lower() in _SUFFIXES]
    return [Face(path) for path in sorted(dict.fromkeys(fitting), key=_strangeness)]


def _packaged() -> Iterator[Path]:
    """Font files of installed packages of the fontpkg family."""
    for point in entry_points(group="fontpkg.family"):
        spec = find_spec(point.module)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            yield from sorted(Path(folder).rglob("*.ttf"))


def _strangeness(path: Path) -> tuple[int, bool, str]:
    """How far a font is from a plain sans serif, by its file's name."""
    # In brackets stand the axes of a variable font, which is drawn at its regular cut.
    name = path.stem.partition("[")[0].lower()
    return sum(part in name for part in _UNWANTED), "sans" not in name, path.name


def _is_unseen(character: str) -> bool:
    """Whether a character only steers how its neighbours are drawn: joiners, variation selectors."""
    return unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f"


@lru_cache(256)
def _sized(path: Path | None, size: int) -> ImageFont.FreeTypeFont:
    return _built_in(size) if path is None else ImageFont.truetype(str(path), size)


def _built_in(size: int) -> ImageFont.FreeTypeFont:
    loaded = ImageFont.load_default(size)
    assert isinstance(loaded, ImageFont.FreeTypeFont)
    return loaded
