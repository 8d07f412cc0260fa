"""Further maps of a gallery's items, in addition to their attention and heat map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from hvx.gallery.workers import MapSource
from hvx.measure.methods.registry import ATTENTION, METHODS, PROPOSED, SPECIFIC
from hvx.progress import Log, no_log
from hvx.store.reader import RunReader

SPECIFIC_TITLE = METHODS[SPECIFIC].title


@dataclass(frozen=True)
class FurtherMaps:
    """The further maps that a user requests.

    Attributes:
        methods: names of ``hvx.measure.methods.registry.METHODS``, as ``hvx figure --methods`` has them.
        device: where the network runs, if maps must be computed.
        seed: of the random map.
        log: receives a line before each computation.
    """

    methods: Sequence[str] | None = None
    device: str = "auto"
    seed: int = 0
    log: Log = no_log


NO_MAPS = FurtherMaps()


@contextmanager
def map_source(reader: RunReader, numbers: np.ndarray, further: FurtherMaps) -> Iterator[MapSource]:
    """The further maps of items ``numbers`` of a run; files of computed maps exist until the exit.

    The proposed map is always shown, and so is the attention of a single glimpse. The question-specific map
    is computed from the run alone if an image has several questions; requested as a method, it is available
    for every item.

    Raises:
        HvxError: see ``hvx.measure.methods.maps.run_maps``.
    """
    if further.methods is None:
        yield MapSource(reader.has_heatmaps and _has_several_questions(reader))
        return
    from hvx.measure.methods.maps import run_maps  # imports PyTorch, which takes seconds

    requested = list(further.methods)
    with run_maps(reader, numbers.tolist(), requested, further.device, further.seed, further.log) as maps:
        files = maps.files()
        shown = [
            name for name in requested if name != PROPOSED and (name != ATTENTION or reader.glimpses > 1)
        ]
        specific = SPECIFIC not in shown and _has_several_questions(reader)
        yield MapSource(specific, {name: files.get(name, {}) for name in shown})


def _has_several_questions(reader: RunReader) -> bool:
    """Whether any image has several questions."""
    images, texts = reader.column("image_id").tolist(), reader.column("question").tolist()
    return len(set(zip(images, texts, strict=True))) > len(set(images))


def titles(source: MapSource) -> list[str]:
    """Names of the columns."""
    specific = [SPECIFIC_TITLE] if source.specific else []
    return specific + [METHODS[name].title for name in source.methods]
