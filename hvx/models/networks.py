"""The networks by their names in ``model.network``."""

from __future__ import annotations

from hvx.config import ModelConfig
from hvx.models.base import Head
from hvx.models.dan import DAN
from hvx.models.gated import Gated
from hvx.models.hiecoatt import HieCoAtt
from hvx.models.mcb import MCB
from hvx.models.mi import MI
from hvx.models.mlb import MLB
from hvx.models.mrn import MRN
from hvx.models.mutan import Mutan

NETWORKS: dict[str, type[Head]] = {
    "mlb": MLB,
    "mrn": MRN,
    "mutan": Mutan,
    "mcb": MCB,
    "gated": Gated,
    "dan": DAN,
    "mi": MI,
    "hiecoatt": HieCoAtt,
}


def new_head(config: ModelConfig, channels: int, words: int, answers: int, dropout: float = 0.0) -> Head:
    """A head with random weights.

    Args:
        config: the network's name and its sizes.
        channels: M, channels of the features.
        words: size of the vocabulary.
        answers: A.
        dropout: share dropped before each projection in training.
    """
    return NETWORKS[config.network](config, channels, words, answers, dropout)
