"""Maps by other methods for the columns of a figure: of a run's items, or of one question on one photo."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from hvx.data.images import crop_photo, to_input
from hvx.data.words import padded
from hvx.device import standard_mode
from hvx.errors import HvxError
from hvx.measure.mapper import Mapper
from hvx.measure.methods import ATTENTION, METHODS, PROPOSED, check_installed, in_order
from hvx.measure.subject import Batch
from hvx.models.checkpoint import VQAModel
from hvx.view.figure import MapColumn

Map = NDArray[np.floating]


def method_columns(names: Sequence[str]) -> tuple[MapColumn, ...]:
    """The columns of a figure whose rows have a map by each of these methods, in their order.

    Args:
        names: of ``hvx.measure.methods.METHODS``.
    """
    return tuple(MapColumn(METHODS[name].title, name != ATTENTION, name == PROPOSED) for name in names)


@standard_mode()
def photo_maps(
    model: VQAModel,
    names: Sequence[str],
    photo: Image.Image,
    tokens: Sequence[str],
    answer: str,
    heatmap: Map,
    attention: Map | None,
    seed: int = 0,
) -> tuple[Map, ...]:
    """Maps of one question on one photo by some methods, for the ``maps`` of a ``FigureRow``.

    Args:
        model: the network that gave the answer; maps are made on its device.
        names: of methods, at least one, none twice; the maps have their order.
        photo: as opened; the network's crop of it is taken here.
        tokens: the question's.
        answer: the one to explain, of the model's answers.
        heatmap: the proposed method's map (H, W), which is known already.
        attention: (G, S, S); None of a network without attention.
        seed: of the random map.

    Returns:
        A map (H, W) or, on the grid of the features, (S, S) for each name, divided by its largest magnitude
        where it is made here.

    Raises:
        HvxError: no such method, one that this network has no map for, captum is needed and absent, a map
            that is not finite, or an answer that the model does not have.
    """
    glimpses = 0 if attention is None else len(attention)
    wanted = in_order(names, glimpses, "methods")
    check_installed(wanted, "methods")
    known: dict[str, Map] = {PROPOSED: heatmap}
    if attention is not None:
        known[ATTENTION] = attention.sum(0)
    made = [name for name in wanted if name not in known]
    if made:
        found = Mapper(model, seed).maps(made, _photo_batch(model, photo, tokens, answer))
        known |= {name: _scaled(name, found[name][0]) for name in made}
    return tuple(known[name] for name in wanted)


def _photo_batch(model: VQAModel, photo: Image.Image, tokens: Sequence[str], answer: str) -> Batch:
    if answer not in model.answers:
        raise HvxError(f"answer: the model has no {answer!r:.60}")
    config = model.config.image
    device = next(model.head.parameters()).device
    inputs = to_input(crop_photo(photo, config), config)[None].to(device)
    rows, lengths = padded([model.vocabulary.rows(list(tokens))])

    def here(values: np.ndarray | list[int]) -> torch.Tensor:
        return torch.as_tensor(values, device=device)

    answers = here([model.answers.index(answer)])
    return Batch([0], inputs, here([0]), here(rows), here(lengths), answers)


def _scaled(name: str, map: Map) -> Map:
    """A map divided by its largest magnitude: those of tiny gradients keep their precision."""
    if not np.isfinite(map).all():
        raise HvxError(f"{name}: a map of the network has values that are not finite")
    largest = np.abs(map).max()
    return np.asarray(map / largest if largest > 0 else map)
