"""A module in a foreign style: words before the batch, its own tokens and its own dictionary of outputs.

The tests copy this file and name it on the command line; some change a line of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import hvx

ANSWERS = ["yes", "no", "red", "green", "blue", "circle", "square"]
KNOWN = ["?", "what", "is", "the", "a", "color", "shape", "there", "circle", "star", "red"]
WORDS = {word: place for place, word in enumerate(KNOWN, 2)}


class Foreign(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        convolutions = nn.Conv2d(3, 8, 5, 4), nn.BatchNorm2d(8), nn.ReLU(True), nn.Conv2d(8, 12, 3, 2)
        self.cnn = nn.Sequential(*convolutions, nn.ReLU())
        self.table = nn.Embedding(len(WORDS) + 2, 10)
        self.lstm = nn.LSTM(10, 16)  # (T, N, E)
        self.glance = nn.Linear(16, 12)
        self.v, self.q, self.out = nn.Linear(12, 20), nn.Linear(16, 20), nn.Linear(20, len(ANSWERS))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        words = batch["words"]  # (T, N)
        states, _ = self.lstm(self.table(words))
        last = (words != 0).sum(0) - 1
        question = states[last, torch.arange(words.shape[1])]
        regions = self.cnn(batch["picture"]).flatten(2)  # (N, C, K)
        weights = (self.glance(question)[:, None] @ regions).softmax(-1)
        pooled = (regions * weights).sum(-1)
        return {"logits": self.out(torch.tanh(self.v(pooled)) * torch.tanh(self.q(question)))}


def inputs(images: Tensor, questions: list[str]) -> hvx.ModelInputs:
    tokens = [[*question.lower().rstrip("? ").split("-")[0].split(), "?"] for question in questions]
    words = torch.zeros(max(map(len, tokens)), len(tokens), dtype=torch.long)
    for column, own in enumerate(tokens):
        words[: len(own), column] = torch.tensor([WORDS.get(token, 1) for token in own])
    return hvx.ModelInputs(({"picture": images, "words": words},), words, tokens, (words != 0).T)


def adapter() -> hvx.Adapter:
    return hvx.Adapter(
        Foreign(), inputs, ANSWERS, read=lambda found: found["logits"], size=64, batch_second=True
    )
