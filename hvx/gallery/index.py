"""The data that the page loads first: columns for search, filters and sorting, and the description."""

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
"""Items in one script of the index; the page loads all of these scripts first."""
_STOPS = 17
"""Number of color stops, between which the page interpolates."""


def write_index(folder: Path, content: Content, measured: Sequence[Sequence[Measured]]) -> None:
    """Write the columns for search, filters and sorting; those of a second run are ``answer2`` and so on.

    Args:
        folder: the gallery's folder.
        content: the items to show.
        measured: the results of each run's chunks.
    """
    first = content.columns[0]
    kinds = {name: sorted(set(map(str, first[name]))) for name in ("question_type", "answer_type")}
    codes = {name: {kind: code for code, kind in enumerate(known)} for name, known in kinds.items()}
    index: dict[str, list[Any]] = {
        # JavaScript would round integers above 2⁵³.
        "id": [str(question_id) for question_id in first["question_id"]],
        "photo": content.shown,
        "question": list(map(str, first["question"])),
        "truth": list(map(str, first["ground_truth"])),
        **{name: [codes[name][str(kind)] for kind in first[name]] for name in kinds},
    }
    for run, (columns, chunks) in enumerate(zip(content.columns, measured, strict=True)):
        run_columns = _of_run(columns, chunks)
        index |= {f"{name}{run + 1}" if run else name: column for name, column in run_columns.items()}
    if len(content.readers) > 1:
        index["alike"] = [number(value) for value in content.alike]
        for run, numbers in enumerate(content.numbers):
            index[f"row{run + 1}" if run else "row"] = numbers.tolist()
    starts = range(0, max(1, len(content)), _INDEX_CHUNK)  # one empty chunk if there are no items
    for chunk, start in enumerate(starts):
        piece = {name: column[start : start + _INDEX_CHUNK] for name, column in index.items()}
        write_script(folder / "data" / f"index-{chunk:04d}.js", "hvx.addIndex", chunk, piece)
    write_script(folder / "data" / "kinds.js", "hvx.setKinds", kinds, len(starts))


def _of_run(columns: dict[str, np.ndarray], chunks: Sequence[Measured]) -> dict[str, list[Any]]:
    answers, truths = list(map(str, columns["answer"])), list(map(str, columns["ground_truth"]))
    return {
        "answer": answers,
        "right": [is_right(*pair) for pair in zip(answers, truths, strict=True)],
        "probability": [number(float(p)) for p in columns["probability"]],
        "agreement": [value for chunk in chunks for value in chunk.agreement],
        "control": [value for chunk in chunks for value in chunk.control],
        "zero": [bits for chunk in chunks for bits in chunk.zero],
    }


def write_description(
    folder: Path,
    content: Content,
    measured: Sequence[Sequence[Measured]],
    missing: list[tuple[int, str]],
) -> None:
    """Write the facts about the whole gallery, and the constants that the page shares with the figures."""
    stops = color_scale()[np.linspace(0, 255, _STOPS).round().astype(int)] / 255
    about = {
        "run": "/".join(content.readers[0].path.resolve().parts[-2:]),
        "split": _split(content.readers[0]),
        "items": len(content),
        "chunk": CHUNK,
        "columns": _columns(content),
        "runs": [
            _run(content, run, summary(columns, chunks))
            for run, (columns, chunks) in enumerate(zip(content.columns, measured, strict=True))
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


def _run(content: Content, run: int, statistics: dict[str, Any]) -> dict[str, Any]:
    """What the page shows about one run; ``heatmap`` and ``specific`` are the columns of these maps, 0 if the
    run has no such map; ``shown`` is the column on cards."""
    reader = content.readers[run]
    sizes = [
        len(_own_columns(other)) + len(source)
        for other, source in zip(content.readers, content.sources, strict=True)
    ]
    shown = sum(sizes[:run]) + len(_own_columns(reader))  # the last of the run's own maps
    heatmap = shown if reader.has_heatmaps else 0
    return {
        "label": content.labels[run],
        "name": content.names[run],
        # Unchanged, so that a command in the same working directory finds the run.
        "path": str(reader.path),
        "items": len(reader),
        "heatmap": heatmap,
        "shown": shown,
        "specific": heatmap + 1 if content.sources[run].specific else 0,
        "scaled": reader.stores_scaled_heatmaps,
        "words": WORDS if reader.maps_words else 0,
        "summary": statistics,
    }


def _split(reader: RunReader) -> str:
    config = reader.about.get("config")
    return str(((config.get("explain") or {}).get("split") if isinstance(config, dict) else None) or "")
