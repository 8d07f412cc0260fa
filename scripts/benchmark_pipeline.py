"""What `hvx explain` costs outside of the network: a run whose network answers at once.

python scripts/benchmark_pipeline.py

Photographs are 640×480 JPEG files; explanations are of 448×448 pixels with two glimpses, stored in float16.
The milliseconds are of a CPU core for each explanation, by who spends them: the main thread, the thread that
writes, and the processes that decode. The run is long enough that the first shards, whose memory is new to
the process, count little. PyTorch has one thread: there is no network, and two threads would wait for each
other while decoders are on the other core.
"""

from __future__ import annotations

import json
import resource
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hvx.config import Config, ImageConfig, parse
from hvx.explain.explainer import Explanations
from hvx.files import write_json
from hvx.run.explain import explain_split
from hvx.run.identity import RunIdentity
from hvx.run.local import LocalEngine
from hvx.run.source import SplitExplainer
from hvx.run.worker import ShardWorker

QUESTIONS = 5
GLIMPSES, LATTICE, TOKENS = 2, 14, 9
ANSWERS = ["yes", "no", "2", "red", "blue"]


@dataclass
class Cost:
    """Of a run: explanations per second, and milliseconds of CPU for each explanation."""

    rate: float
    main: float
    writer: float
    decoders: float


class NoNetwork:
    """Explanations that are made beforehand."""

    device = torch.device("cpu")

    def __init__(self, most: int, size: int) -> None:
        seeded = torch.Generator().manual_seed(0)
        self._words = [f"word{n}" for n in range(TOKENS)]
        self._maps = torch.rand(most, size, size, generator=seeded)
        self._attention = torch.rand(most, GLIMPSES, LATTICE, LATTICE, generator=seeded)
        self._z = torch.rand(most, TOKENS, generator=seeded)

    def memory(self) -> int:
        return 10**8

    def explain(self, inputs: Tensor, images: list[int], questions: list[str]) -> Explanations:
        count = len(questions)
        zero = torch.zeros(count, dtype=torch.bool)
        return Explanations(
            tokens=[self._words] * count,
            unknown=[[False] * TOKENS] * count,
            answers=[ANSWERS] * count,
            probabilities=torch.full((count, len(ANSWERS)), 0.2),
            attention=self._attention[:count],
            saliency=self._z[:count],
            z=self._z[:count],
            heatmap=self._maps[:count],
            gradient=None,
            zero_image_gradient=zero,
            zero_word_gradient=zero,
        )


@dataclass(frozen=True)
class Free:
    """A source of ``NoNetwork``."""

    image: ImageConfig
    batch: int

    def identity(self) -> dict[str, Any]:
        return {}

    def check(self, identity: dict[str, Any]) -> None:
        """There is no file."""

    def load(self, device: torch.device) -> SplitExplainer:
        return NoNetwork(self.batch * QUESTIONS, self.image.size)

    def item_bytes(self) -> int:
        return 2 * self.image.size**2

    def versions(self) -> dict[str, str]:
        return {}

    def facts(self) -> dict[str, Any]:
        return {}

    def notes(self) -> list[str]:
        return []


def photographs(folder: Path, count: int) -> None:
    """Pictures about as hard to decode as photographs: smooth noise."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (60, 80, 3), np.uint8))
        fine = np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC), np.int16)
        noisy = fine + random.integers(-8, 9, fine.shape, np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)


def measured(folder: Path, images: int, batch: int = 8) -> Cost:
    """A run over ``images`` photographs, ``QUESTIONS`` questions on each."""
    photographs(folder / "photos", images)
    rows = [
        {"question_id": 10 * n + k, "image_id": n, "question": "what is it"}
        for n in range(images)
        for k in range(QUESTIONS)
    ]
    write_json(folder / "questions.json", {"questions": rows})
    split = {"questions": "questions.json", "images": "photos", "image_name": "{image_id}.jpg"}
    tree = {
        "root": str(folder), "checkpoint": "none.safetensors", "splits": {"val": split},
        "explain": {"run": "run", "batch_images": batch},
    }  # fmt: skip
    began, writer = [0.0, 0.0], [0.0]

    def start(config: Config, identity: RunIdentity) -> LocalEngine:
        engine = LocalEngine(config, torch.device("cpu"), identity)
        began[:] = time.perf_counter(), time.thread_time()
        return engine

    plain = ShardWorker._write

    def timed(worker: ShardWorker, *given: Any) -> None:
        assert threading.current_thread() is not threading.main_thread()
        before = time.thread_time()
        plain(worker, *given)
        writer[0] += time.thread_time() - before

    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    setattr(ShardWorker, "_write", timed)  # noqa: B010
    try:
        explain_split(parse(tree, "benchmark"), start, source=Free(ImageConfig(), batch))
    finally:
        setattr(ShardWorker, "_write", plain)  # noqa: B010
    seconds, main = time.perf_counter() - began[0], time.thread_time() - began[1]
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    decoders = ended.ru_utime + ended.ru_stime - children.ru_utime - children.ru_stime
    each = 1000 / len(rows)
    return Cost(len(rows) / seconds, main * each, writer[0] * each, decoders * each)


@click.command()
@click.option("--images", default=1000, show_default=True, help="Photographs, with five questions each.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(images: int, as_json: bool) -> None:
    """Print the row of the benchmark."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        cost = measured(Path(folder), images)
    if as_json:
        click.echo(json.dumps(asdict(cost)))
        return
    click.echo(
        f"{cost.rate:.0f} explanations per second; CPU milliseconds for each: main thread {cost.main:.2f}, "
        f"writer {cost.writer:.2f}, decoders {cost.decoders:.2f}"
    )


if __name__ == "__main__":
    main()
