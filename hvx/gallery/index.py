"""What the page loads at first: the columns that search, filters and sorting go by, and the description."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hvx import __version__
from hvx.gallery.content import CHUNK, Content
from hvx.gallery.folder import MARK
from hvx.gallery.further import titles
from hvx.gallery.pictures import WORDS
from hvx.gallery.scripts import number, write_script
from hvx.gallery.summary import summary
from hvx.gallery.workers import Measured
from hvx.store.reader import RunReader
from hvx.view.figure import column_names
from hvx.view.heat import FLOOR_BRIGHTNESS, FLOOR_TINT, TINT, color_scale
from hvx.view.tokens import HIGH, LOW, NEUTRAL, Z_LIMIT, is_right

_INDEX_CHUNK = 5000
"""Items in one script of the index, all of which the page loads at first."""
_STOPS = 17
"""Of the color scale, between which the page interpolates."""


def write_index(folder: Path, content: Content, measured: Sequence[Sequence[Measured]]) -> None:
    """Write what search, filters and sorting go by, a column each; of a second run as ``answer2`` and so on.

    Args:
        folder: of the gallery.
        content: what it shows.
        measured: of each run's chunks.
    """
    first = content.columns[0]
    kinds = {name: sorted(set(map(str, first[name]))) for name in ("question_type", "answer_type")}
    places = {name: {kind: place for place, kind in enumerate(known)} for name, known in kinds.items()}
    index: dict[str, list[Any]] = {
        # Numbers beyond 2⁵³ would lose their last digits in a browser.
        "id": [str(one) for one in first["question_id"]],
        "photo": content.shown,
        "question": list(map(str, first["question"])),
        "truth": list(map(str, first["ground_truth"])),
        **{name: [places[name][str(kind)] for kind in first[name]] for name in kinds},
    }
    for place, (columns, chunks) in enumerate(zip(content.columns, measured, strict=True)):
        own = _of_run(columns, chunks)
        index |= {f"{name}{place + 1}" if place else name: column for name, column in own.items()}
    if len(content.readers) > 1:
        index["alike"] = [number(value) for value in content.alike]
        for place, numbers in enumerate(content.numbers):
            index[f"row{place + 1}" if place else "row"] = numbers.tolist()
    starts = range(0, max(1, len(content)), _INDEX_CHUNK)  # a piece, if an empty one, without items
    for place, start in enumerate(starts):
        piece = {name: column[start : start + _INDEX_CHUNK] for name, column in index.items()}
        write_script(folder / "data" / f"index-{place:04d}.js", "hvx.addIndex", place, piece)
    write_script(folder / "data" / "kinds.js", "hvx.setKinds", kinds, len(starts))


def _of_run(columns: dict[str, np.ndarray], chunks: Sequence[Measured]) -> dict[str, list[Any]]:
    answers, truths = list(map(str, columns["answer"])), list(map(str, columns["ground_truth"]))
    return {
        "answer": answers,
        "right": [is_right(*pair) for pair in zip(answers, truths, strict=True)],
        "probability": [number(float(one)) for one in columns["probability"]],
        "agreement": [value for one in chunks for value in one.agreement],
        "control": [value for one in chunks for value in one.control],
        "zero": [bits for one in chunks for bits in one.zero],
    }


def write_description(
    folder: Path,
    content: Content,
    measured: Sequence[Sequence[Measured]],
    missing: list[tuple[int, str]],
) -> None:
    """Write what is true of the whole gallery, and the constants that the page shares with the figures."""
    stops = color_scale()[np.linspace(0, 255, _STOPS).round().astype(int)] / 255
    about = {
        "run": "/".join(content.readers[0].path.resolve().parts[-2:]),
        "split": _split(content.readers[0]),
        "items": len(content),
        "chunk": CHUNK,
        "columns": _columns(content),
        "runs": [
            _run(content, place, summary(columns, chunks))
            for place, (columns, chunks) in enumerate(zip(content.columns, measured, strict=True))
        ],
        "notes": content.notes,
        "missingPhotos": missing,
        "zLimit": Z_LIMIT,
        "zColors": [LOW, NEUTRAL, HIGH],
        "floor": FLOOR_BRIGHTNESS,
        "floorTint": FLOOR_TINT,
        "tint": TINT,
        "scale": [[number(float(value), 3) for value in stop] for stop in stops],
        "version": __version__,
    }
    write_script(folder / MARK, "hvx.describe", about)


def _columns(content: Content) -> list[str]:
    """Names of the pictures of an item: the photograph, then each run's maps."""
    maps = [
        f"{label}: {name}" if label else name
        for label, reader, source in zip(content.labels, content.readers, content.sources, strict=True)
        for name in [*_own_columns(reader), *titles(source)]
    ]
    return [column_names(0)[0], *maps]


def _own_columns(reader: RunReader) -> list[str]:
    """Names of a run's own maps."""
    return column_names(reader.glimpses, int(reader.has_heatmaps), reader.attends_on_levels)[1:]


def _run(content: Content, place: int, numbers: dict[str, Any]) -> dict[str, Any]:
    """What the page says of one run; ``heatmap`` and ``specific`` are the places of these maps among the
    columns, 0 where it has no such map; ``shown`` that of the map on cards."""
    reader = content.readers[place]
    sizes = [
        len(_own_columns(one)) + len(source)
        for one, source in zip(content.readers, content.sources, strict=True)
    ]
    shown = sum(sizes[:place]) + len(_own_columns(reader))  # the last of its own
    heatmap = shown if reader.has_heatmaps else 0
    return {
        "label": content.labels[place],
        "name": content.names[place],
        # As it was given: how a command finds it again from the same folder.
        "path": str(reader.path),
        "items": len(reader),
        "heatmap": heatmap,
        "shown": shown,
        "specific": heatmap + 1 if content.sources[place].specific else 0,
        "scaled": reader.stores_scaled_heatmaps,
        "words": WORDS if reader.maps_words else 0,
        "summary": numbers,
    }


def _split(reader: RunReader) -> str:
    config = reader.about.get("config")
    return str(((config.get("explain") or {}).get("split") if isinstance(config, dict) else None) or "")
