"""A module of one's own over a whole split: ``hvx explain CONFIG --model own_module.py:adapter``.

The network is in the style of RSVQA: a batch of images and a LongTensor of questions, a CNN for the one, an
LSTM for the other, the product of both, a classifier. ``adapter`` is all that hvx needs to know of it. The
weights are random unless ``own_module.pt`` lies beside this file.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

import hvx

ANSWERS = ["yes", "no", "red", "green", "blue", "circle", "square", "triangle", "star"]
WORDS = [
    "<pad>",
    "<unknown>",
    "what",
    "color",
    "shape",
    "is",
    "the",
    "there",
    "a",
    "red",
    "green",
    "circle",
    "star",
]
LENGTH = 20
"""Of all questions: with padding to the longest of a batch, an answer would depend on the batch."""


class Network(nn.Module):
    """A small one; a real one would have a ResNet and skip-thought vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(3, 16, 5, 4, 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.ReLU(inplace=True),
        )
        self.words = nn.Embedding(len(WORDS), 24, padding_idx=0)
        self.lstm = nn.LSTM(24, 32, batch_first=True)
        self.fc_v, self.fc_q, self.classifier = (
            nn.Linear(32, 48),
            nn.Linear(32, 48),
            nn.Linear(48, len(ANSWERS)),
        )

    def forward(self, images: Tensor, questions: Tensor) -> Tensor:
        """Logits (N, A) of images (N, 3, H, W) and word ids (N, T)."""
        x_v = torch.tanh(self.fc_v(self.cnn(images).mean((2, 3))))
        x_q = torch.tanh(self.fc_q(self.lstm(self.words(questions))[1][0][-1]))
        answer: Tensor = self.classifier(x_v * x_q)
        return answer


def adapter() -> hvx.Adapter:
    """What hvx needs to know: the module, how questions become ids, what the output means."""
    network, weights = Network(), Path(__file__).with_suffix(".pt")
    if weights.exists():
        network.load_state_dict(torch.load(weights, weights_only=True))

    def inputs(images: Tensor, questions: list[str]) -> hvx.ModelInputs:
        tokens = [question.lower().replace("?", " ?").split()[:LENGTH] for question in questions]
        ids = torch.zeros(len(tokens), LENGTH, dtype=torch.long, device=images.device)
        for row, own in enumerate(tokens):
            known = [WORDS.index(word) if word in WORDS else 1 for word in own]
            ids[row, -len(own) :] = torch.tensor(known)  # the LSTM reads the padding on the left
        unknown = [[word not in WORDS for word in own] for own in tokens]
        return hvx.ModelInputs((images, ids), words=ids, tokens=tokens, unknown=unknown)

    return hvx.Adapter(network, inputs, answers=ANSWERS, size=64)
