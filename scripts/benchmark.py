"""hvx compared with captum and pytorch-grad-cam, on the same MLB over ResNet-152, photographs and questions.

python scripts/benchmark.py -o docs/benchmarks.md

All take turns in one process, so that each number is a ratio of what the same machine did within the
same half minute. Weights are random, which makes no difference to time. Peers explain an image and a question
at a time, a forward and a backward pass each; captum also a batch of them. They compute Eq. 2 alone, hvx
Eqs 2 and 3 with all scores. Memory, and what a run costs outside of the network, are measured in processes of
their own.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from benchmark_commands import costs, gallery_cost, measure_cost
from benchmark_page import MATRICES, Figures, page
from benchmark_peers import PEERS, Score
from count_kernels import GPU, section
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet152

from hvx.config import Config, ModelConfig, parse
from hvx.data.images import load_input
from hvx.data.scenes import write_scenes
from hvx.data.tokenize import Vocabulary, padded, tokenizer
from hvx.device import pick_device
from hvx.explain.explainer import Explainer
from hvx.explain.fused import FusedGuidedBackbone, FusedGuidedVJP
from hvx.explain.guided import GuidedVJP, guided
from hvx.explain.hadamard import HeadVJP
from hvx.files import write_json
from hvx.models.backbone import build_backbone
from hvx.models.base import HadamardHead
from hvx.models.checkpoint import VQAModel, save_checkpoint
from hvx.models.mlb import MLB
from hvx.run.explain import explain_split
from hvx.run.identity import RunIdentity
from hvx.run.local import LocalEngine

PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "daquar" / "images"
QUESTIONS = [
    "what is on the table?", "how many chairs are in the room?", "what color is the wall behind the bed?",
    "is the window open?", "what is the largest object to the right of the door?",
]  # fmt: skip
"""Asked of each photograph: about as many as VQA v2 asks."""
ANSWERS = 2000
IMAGES = {"cpu": 4, "cuda": 32}
"""In a batch of hvx, by type of device."""
ALONE = 4
"""Explanations by a peer in each turn."""
FROZEN = ", weights frozen"
AT_ONCE = f", {ALONE} at once"
RUN_IMAGES = 12
MATRIX = 2048
LONG_TURNS = 3


@dataclass(frozen=True)
class Material:
    """A model, normalized photographs (B, C, H, W), and the questions' rows (N, T) and lengths (N)."""

    model: VQAModel
    inputs: Tensor
    rows: Tensor
    lengths: Tensor

    @property
    def device(self) -> torch.device:
        return self.inputs.device

    @property
    def head(self) -> HadamardHead:
        assert isinstance(self.model.head, HadamardHead)
        return self.model.head


def made_model(device: torch.device, questions: Sequence[str] = QUESTIONS) -> VQAModel:
    """MLB at the paper's sizes over ResNet-152, of random weights; it knows the words of these questions."""
    torch.manual_seed(0)
    config = ModelConfig()
    backbone = build_backbone(config.backbone)
    for name, module in backbone.named_modules():
        if name.endswith("bn3") and isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 0.25)  # or fifty blocks' sums grow beyond all bounds
    tokenize = tokenizer(config.encoder)
    words = sorted({token for question in questions for token in tokenize(question)})
    with torch.device("meta"):  # the GRU's own initialization takes 20 s
        head = MLB(config, 2048, len(words), ANSWERS)
    head = head.to_empty(device="cpu").requires_grad_(False).eval()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.02)
    answers = [f"answer {n}" for n in range(ANSWERS)]
    return VQAModel(config, backbone.to(device), head.to(device), Vocabulary(tuple(words)), answers)


def photographs(folder: Path, count: int) -> list[Path]:
    """Real ones where they are at hand; else scenes of the built-in split."""
    if PHOTOS.is_dir():
        return sorted(PHOTOS.glob("*.jpg"))[:count]
    if not (folder / "scenes").exists():
        write_scenes(folder / "scenes", 1, max(RUN_IMAGES, *IMAGES.values()), 448, 0)
    return sorted((folder / "scenes" / "images").glob("SCENES_val_*"))[:count]


def made_material(folder: Path, device: torch.device) -> Material:
    model = made_model(device)
    paths = photographs(folder, IMAGES[device.type])
    inputs = torch.stack([load_input(path, model.config.image) for path in paths]).to(device)
    tokenize = tokenizer(model.config.encoder)
    rows, lengths = padded([model.vocabulary.rows(tokenize(question)) for question in QUESTIONS])
    return Material(model, inputs, torch.from_numpy(rows).to(device), torch.from_numpy(lengths).to(device))


def by_hvx(m: Material, explainer: Explainer) -> Callable[[int], int]:
    """Explains every question on the first so many images; returns how many explanations that is."""

    def work(images: int) -> int:
        asked = [image for image in range(images) for _ in QUESTIONS]
        explainer.explain(m.inputs[:images], asked, QUESTIONS * images)
        return len(asked)

    return work


def by_peer(m: Material, name: str) -> Callable[[int], int]:
    """Explains so many questions, one after the other, or by ``AT_ONCE`` in one batch.

    The weights ask for gradients, as those of any network that PyTorch loads do; of a peer that goes by
    ``FROZEN`` they do not, which its user would have to see to.
    """
    peer, frozen = name.removesuffix(FROZEN).removesuffix(AT_ONCE), name.endswith(FROZEN)
    network, head = resnet152(), copy.deepcopy(m.head).requires_grad_(not frozen)
    network.load_state_dict(m.model.backbone.network.state_dict(), strict=False)
    features = nn.Sequential(*list(network.children())[:-2]).eval().requires_grad_(not frozen).to(m.device)
    explain = PEERS[peer](Score(features, head), m.device)

    def work(count: int) -> int:
        numbers = torch.arange(count, device=m.device)
        for some in numbers.split(count if AT_ONCE in name else 1):
            asked = some % len(QUESTIONS)
            explain(m.inputs[some % len(m.inputs)], m.rows[asked], m.lengths[asked])
        return count

    return work


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """What a call takes, to the end of what it began on the device."""
    _await(device)
    start = time.perf_counter()
    work()
    _await(device)
    return time.perf_counter() - start


def _await(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of PyTorch's product of two matrices, the best of a few."""
    a, b = (torch.randn(MATRIX, MATRIX, device=device).to(dtype) for _ in range(2))
    return 2 * MATRIX**3 / min(seconds(lambda: a @ b, device) for _ in range(8))


def flops_of_forward(m: Material) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        m.model.backbone(m.inputs[:1])
    return int(counter.get_total_flops())


def take_turns(m: Material, turns: int) -> dict[str, list[float]]:
    """Explanations per second of each, and FLOP/s of products of matrices by type, turn by turn."""
    batch = len(m.inputs)
    works = {"hvx": (by_hvx(m, Explainer(m.model)), batch)}
    works["hvx bfloat16"] = by_hvx(m, Explainer(m.model, dtype=torch.bfloat16)), batch
    peers = (*PEERS, f"captum{AT_ONCE}{FROZEN}", f"grad-cam{FROZEN}")
    works |= {name: (by_peer(m, name), ALONE) for name in peers}
    if m.device.type == "cuda":
        works["hvx compiled"] = by_hvx(m, Explainer(m.model, compiled=True)), batch
    counts = {name: work(size) for name, (work, size) in works.items()}  # warms up
    found: dict[str, list[float]] = {name: [] for name in (*works, *MATRICES)}
    for turn in range(turns):
        for name, dtype in MATRICES.items():
            found[name].append(matrix_rate(m.device, dtype))
        for name, (work, size) in works.items():
            found[name].append(counts[name] / seconds(lambda: work(size), m.device))  # noqa: B023
        said = ", ".join(f"{name} {own[-1]:.4g}" for name, own in found.items())
        click.echo(f"turn {turn + 1} of {turns}: {said}", err=True)
    return found


def difference(m: Material) -> float:
    """Of the fused engine's gradient at the image from the plain one's, relative: the largest of five."""
    images = m.inputs[:1]
    pullbacks = (
        FusedGuidedBackbone(m.model.backbone.network)(images),
        GuidedVJP(guided(m.model.backbone.network), images),
    )
    place = torch.tensor([0], device=m.device)
    apart = []
    for n in range(len(QUESTIONS)):
        # The same cotangent for both: what lies before it is not the engines' work.
        head = HeadVJP(m.head, pullbacks[1].features, m.rows[n][None], m.lengths[n][None])
        fused, plain = (pullback.vjp(list(head.visual(place)[1])[-1]) for pullback in pullbacks)
        apart.append(float((fused - plain).norm() / plain.norm()))
    return max(apart)


@contextmanager
def timed_network() -> Iterator[list[float]]:
    """The seconds of each pass through the backbone and the head."""
    spent: list[float] = []
    methods = [
        (FusedGuidedVJP, "__init__"), (FusedGuidedVJP, "vjp"), (HeadVJP, "__init__"),
        (HeadVJP, "visual"), (HeadVJP, "textual"),
    ]  # fmt: skip
    before = [(owner, name, getattr(owner, name)) for owner, name in methods]

    def timed(method: Any) -> Any:
        def call(*given: Any) -> Any:
            start = time.perf_counter()
            try:
                return method(*given)
            finally:
                spent.append(time.perf_counter() - start)

        return call

    for owner, name, method in before:
        setattr(owner, name, timed(method))
    try:
        yield spent
    finally:
        for owner, name, method in before:
            setattr(owner, name, method)


def whole_run(m: Material, folder: Path) -> float:
    """Seconds of `hvx explain` once its model is loaded, to the last file, over those in the network."""
    paths = photographs(folder, RUN_IMAGES)
    rows = [
        {"question_id": 10 * n + k, "image_id": n, "question": question}
        for n in range(len(paths))
        for k, question in enumerate(QUESTIONS)
    ]
    write_json(folder / "questions.json", {"questions": rows})
    (folder / "photos").mkdir()
    for n, path in enumerate(paths):
        (folder / "photos" / f"{n}{path.suffix}").symlink_to(path)
    save_checkpoint(folder / "model.safetensors", m.model)
    split = {"questions": "questions.json", "images": "photos", "image_name": "{image_id}" + paths[0].suffix}
    tree = {
        "root": str(folder), "checkpoint": "model.safetensors", "splits": {"val": split},
        "explain": {"run": "run", "shard_questions": 20},
    }  # fmt: skip
    began: list[float] = []

    def start(config: Config, identity: RunIdentity) -> LocalEngine:
        engine = LocalEngine(config, m.device, identity)
        began.append(time.perf_counter())
        return engine

    with timed_network() as spent:
        explain_split(parse(tree, "benchmark"), start)
        return (time.perf_counter() - began[0]) / sum(spent)


def long_question(m: Material) -> float:
    """Seconds of a batch with a question of 200 tokens over those of the same batch without it; a median."""
    explainer, images = Explainer(m.model), len(m.inputs)
    asked = [image for image in range(images) for _ in QUESTIONS]
    short = QUESTIONS * images
    long = [" ".join(["table"] * 200), *short[1:]]
    ratios = []
    for _ in range(LONG_TURNS):
        without, with_it = (
            seconds(lambda: explainer.explain(m.inputs, asked, questions), m.device)  # noqa: B023
            for questions in (short, long)
        )
        ratios.append(with_it / without)
    return statistics.median(ratios)


def resident() -> float:
    """Memory of this process, MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory_of(name: str, m: Material) -> float:
    """MB above the loaded model, per image in the batch, at the peak of a few explanations on the CPU."""
    work, count, images = by_hvx(m, Explainer(m.model)), len(m.inputs), len(m.inputs)
    if name in PEERS:
        work, count, images = by_peer(m, name), 2, 1
    work(count)  # lays out what is laid out once, by thread too
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    before, peak, done = resident(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    work(count)
    done.set()
    watcher.join()
    return (peak - before) / images


def memory_of_each() -> dict[str, float]:
    return {name: float(_printed(__file__, "--memory", name)) for name in ("hvx", *PEERS)}


def pipeline_costs() -> dict[str, float]:
    """What scripts/benchmark_pipeline.py measures."""
    found: dict[str, float] = json.loads(
        _printed(str(Path(__file__).parent / "benchmark_pipeline.py"), "--json")
    )
    return found


def stages_seconds(report: Path) -> float | None:
    """Seconds of a reproduction's stages, from its report, where ``stage: part`` is a part of one."""
    if not report.is_file():
        return None
    stages: dict[str, float] = json.loads(report.read_text(encoding="utf-8"))["seconds"]
    return sum(seconds for stage, seconds in stages.items() if ":" not in stage)


def _printed(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True).stdout


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the page here.")
@click.option("--turns", default=9, show_default=True, help="Alternations.")
@click.option("--device", default="auto", show_default=True)
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    default=Path("runs/reproduce/run"),
    show_default=True,
    help="The run that `hvx measure` measures, made by `make reproduce`; rows without one are left out.",
)
@click.option("--memory", type=click.Choice(["hvx", *PEERS]), help="Print the memory of one, and no more.")
def main(output: Path | None, turns: int, device: str, run: Path, memory: str | None) -> None:
    """Measure, print the page, and write it."""
    chosen = pick_device("cpu" if memory else device)
    with tempfile.TemporaryDirectory() as place:
        m = made_material(Path(place), chosen)
        if memory:
            click.echo(memory_of(memory, m))
            return
        photos = "photographs" if PHOTOS.is_dir() else "drawn scenes"
        figures = Figures(
            device=chosen,
            images=f"{len(m.inputs)} {photos} of {m.model.config.image.size}×{m.model.config.image.size}",
            questions=len(QUESTIONS),
            alone=ALONE,
            flops=flops_of_forward(m),
            difference=difference(m),
            rates=take_turns(m, turns),
            overhead=whole_run(m, Path(place)),
            memory=memory_of_each() if chosen.type == "cpu" else {},
            pipeline=pipeline_costs(),
            long_question=long_question(m),
            commands=costs(Path(place) / "model.safetensors"),
            gallery=gallery_cost(Path(place) / "gallery", PHOTOS) if PHOTOS.is_dir() else None,
            measure=measure_cost(Path(place), run) if run.is_dir() else None,
            reproduce=stages_seconds(run.parent / "reproduce.json"),
        )
    text = f"{page(figures)}\n{section(GPU(), questions=len(QUESTIONS))}"
    click.echo(text)
    if output:
        output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
