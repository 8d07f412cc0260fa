"""The labels among which a dual encoder chooses."""

from __future__ import annotations

from hvx.config import SplitConfig
from hvx.data.ids import NO_TEXT, storable
from hvx.errors import HvxError, shown


def label_names(split: SplitConfig) -> tuple[str, ...] | None:
    """The labels of a split, with its paths resolved; None if it has none.

    Raises:
        HvxError: their file cannot be read, has fewer than two labels, or has one of them twice.
    """
    labels, source = split.labels, "splits: labels"
    if labels is None:
        return None
    if not isinstance(labels, tuple):
        source = str(labels)
        try:
            lines = labels.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise HvxError(f"{labels}: no readable file of labels, one a line: {error}") from None
        labels = tuple(line.strip() for line in lines if line.strip())
    seen: set[str] = set()
    for label in labels:
        if label in seen:
            raise HvxError(f"{source}: the label {shown(label)} occurs twice")
        if not storable(label):
            raise HvxError(f"{source}: {shown(label)} {NO_TEXT}")
        seen.add(label)
    if len(labels) < 2:
        raise HvxError(f"{source}: {len(labels)} labels; expected two or more")
    return labels
