"""Prints what ``explain_product`` takes in time and memory, as ratios of what it is compared with.

python scripts/measure_capture.py                     # both comparisons
python scripts/measure_capture.py --turns 3 --size 224

1. Five questions on one photo through ResNet-50: compared with hvx's own engine on the same network.
2. MLB with attention at full size on given features: compared with autograd by hand, which takes V and Q from
   the forward and pulls V − F and Q − F back. Both give Eqs 2 and 3; the largest difference is printed.

The two of a comparison take turns in one process. Memory is the peak over what was taken before,
after a first small call, in a process of its own for each.
"""

from __future__ import annotations

import gc
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
from torch import Tensor, nn

from hvx import explain_product
from hvx.capture.result import ProductExplanation
from hvx.config import ModelConfig
from hvx.data.tokenize import Vocabulary, padded, tokenizer
from hvx.explain.explainer import Explainer, Explanations
from hvx.models.backbone import build_backbone
from hvx.models.checkpoint import VQAModel
from hvx.models.mlb import MLB

QUESTIONS = [
    "what is on the table?", "how many chairs are in the room?", "what color is the wall behind the bed?",
    "is the window open?", "what is the largest object to the right of the door?",
]  # fmt: skip
MIB = 2**10

Gradients = tuple[Tensor, Tensor]
Compared = tuple[Callable[[], object], Callable[[], object], str]
"""What is measured, what it is compared with, how far their results are apart."""


class Whole(nn.Module):
    """One of hvx's models as a module of pixels and ids."""

    def __init__(self, model: VQAModel, lengths: Tensor) -> None:
        super().__init__()
        self.backbone, self.head, self.lengths = model.backbone, model.head, lengths

    def forward(self, photo: Tensor, ids: Tensor) -> Tensor:
        features = self.backbone(photo)
        images = torch.zeros(len(ids), dtype=torch.long)
        terms, embeddings = self.head.image_terms(features), self.head.encoder.embed(ids)
        logits: Tensor = self.head(features, terms, images, embeddings, self.lengths).logits
        return logits


class MLBAtt(nn.Module):
    """MLB with attention over given features, at the sizes of the published port; keeps V and Q."""

    visual: Tensor
    textual: Tensor
    embeddings: Tensor

    def __init__(self, words: int = 13_000, answers: int = 2_000, glimpses: int = 4, width: int = 1_200):
        super().__init__()
        self.embed, self.gru = nn.Embedding(words, 620, padding_idx=0), nn.GRU(620, 2_400, batch_first=True)
        self.to_v, self.to_q = nn.Conv2d(2_048, width, 1), nn.Linear(2_400, width)
        self.attend = nn.Conv2d(width, glimpses, 1)
        self.fuse_v = nn.ModuleList(nn.Linear(2_048, width // glimpses) for _ in range(glimpses))
        self.fuse_q = nn.Linear(2_400, width)
        self.answer = nn.Linear(width, answers)

    def forward(self, features: Tensor, ids: Tensor) -> Tensor:
        self.embeddings = self.embed(ids)
        question = self.gru(self.embeddings)[0][:, -1]
        attended = torch.tanh(self.to_v(features)) * torch.tanh(self.to_q(question))[..., None, None]
        weights = self.attend(attended).flatten(2).softmax(2)
        pooled = torch.bmm(weights, features.flatten(2).transpose(1, 2)).unbind(1)
        v = torch.cat([linear(x) for linear, x in zip(self.fuse_v, pooled, strict=True)], 1)
        self.visual, self.textual = torch.tanh(v), torch.tanh(self.fuse_q(question))
        logits: Tensor = self.answer(self.visual * self.textual)
        return logits


def one_photo(size: int) -> Compared:
    """Five questions on a photo: by ``explain_product``, by hvx's engine."""
    torch.manual_seed(0)
    tokenize = tokenizer(ModelConfig().encoder)
    tokens = [tokenize(question) for question in QUESTIONS]
    vocabulary = Vocabulary(tuple(sorted({token for row in tokens for token in row})))
    config = ModelConfig.model_validate(
        {
            "backbone": {"architecture": "resnet50", "node": "layer4", "weights": None},
            "image": {"size": size},
        }
    )
    backbone = build_backbone(config.backbone)
    head = MLB(config, 2048, len(vocabulary.words), 100).eval().requires_grad_(False)
    model = VQAModel(config, backbone, head, vocabulary, [f"answer {n}" for n in range(100)])
    photo = torch.randn(1, 3, size, size)
    rows, lengths = (torch.from_numpy(each) for each in padded([vocabulary.rows(own) for own in tokens]))
    whole, engine = Whole(model, lengths).eval(), Explainer(model, gradient=True)
    mask = torch.arange(rows.shape[1]) < lengths[:, None]

    def captured() -> ProductExplanation:
        return explain_product(whole, (photo, rows), image=photo, words=rows, mask=mask)

    def by_engine() -> Tensor:
        found = engine.explain(photo, [0] * len(QUESTIONS), QUESTIONS)
        assert isinstance(found, Explanations)
        return found.heatmap

    maps = captured().heatmap
    assert maps is not None
    apart = float((maps - by_engine()).abs().max() / maps.abs().max())
    return captured, by_engine, f"largest difference of heat maps {apart:.1e} of their maximum"


def on_features(questions: int = 32) -> tuple[Callable[[], Gradients], Callable[[], Gradients]]:
    """MLB with attention at full size: by ``explain_product``, by hand."""
    torch.manual_seed(0)
    model = MLBAtt().eval()
    features = torch.randn(questions, 2_048, 14, 14).relu()
    ids = torch.randint(1, 13_000, (questions, 14))

    def captured() -> Gradients:
        found = explain_product(model, (features, ids), image=features, words=ids)
        return found.image_gradient, found.word_gradient

    def by_hand() -> Gradients:
        leaf = features.detach().requires_grad_()
        model(leaf, ids)
        v, q, embeddings = model.visual, model.textual, model.embeddings
        joint = (v * q).detach()
        to_image = torch.autograd.grad(v, leaf, v.detach() - joint, retain_graph=True)[0]
        to_words = torch.autograd.grad(q, embeddings, q.detach() - joint)[0]
        del model.visual, model.textual, model.embeddings
        return to_image, to_words

    return captured, by_hand


def checked(pair: tuple[Callable[[], Gradients], Callable[[], Gradients]]) -> Compared:
    """The two, with how far their results are apart."""
    results = zip(pair[0](), pair[1](), strict=True)
    apart = max(float((one - other).abs().max() / other.abs().max()) for one, other in results)
    return *pair, f"largest difference {apart:.1e} of the maximum"


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(name: str, made: Compared, turns: int) -> None:
    ours, other, apart = made
    pairs = [(seconds(ours), seconds(other)) for _ in range(turns)]
    ratios = sorted(one / two for one, two in pairs)
    medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}, {turns} turns"
    click.echo(
        f"{name}: ratio {statistics.median(ratios):.2f} ({spread}); "
        f"{medians[0]:.2f} s and {medians[1]:.2f} s; {apart}"
    )


def memory(number: int) -> int:
    """MiB by which the peak lies over what the model and its inputs take, in this process; on Linux."""
    on_features(1)[number]()  # what is imported and cached once
    work = on_features()[number]
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _kibibytes("VmRSS")
    work()
    return (_kibibytes("VmHWM") - before) // MIB


def _kibibytes(name: str) -> int:
    """Memory of this process: ``VmRSS`` now, ``VmHWM`` its peak."""
    return int(re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[0])


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--turns", default=5, show_default=True, help="Times that each takes its turn.")
@click.option("--size", default=448, show_default=True, help="Pixels of the photo's side.")
@click.option("--memory-of", type=int, hidden=True)
def main(turns: int, size: int, memory_of: int | None) -> None:
    """Time and memory of explain_product, as ratios."""
    if memory_of is not None:
        click.echo(memory(memory_of))
        return
    compare("five questions on one photo, ResNet-50, of hvx's engine", one_photo(size), turns)
    compare("MLB with attention on features, of autograd by hand", checked(on_features()), turns)
    pairs = [(_memory_apart(0), _memory_apart(1)) for _ in range(turns)]
    ratios = sorted(ours / by_hand for ours, by_hand in pairs)
    medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
    click.echo(
        f"memory of the second: ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}, "
        f"{turns} turns); {medians[0]:.0f} and {medians[1]:.0f} MiB over the model's"
    )


def _memory_apart(number: int) -> int:
    """``memory`` in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", str(number)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
