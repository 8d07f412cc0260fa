"""The page of a benchmark: what was measured and what is required, and on what."""

from __future__ import annotations

import platform
import statistics
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from hvx.cpu_count import cpus

PAGE = """# Benchmarks

Written by `make bench` ({date}): MLB at the paper's sizes over ResNet-152 of random weights, {images}
pixels, {questions} questions on each. In each of {turns} turns hvx explains all of them in float32, then
in bfloat16, and the peers {alone} each, one at a time or, where the table says so, in one batch; all in
one process. Medians, with the least and the largest. The peers compute Eq. 2 alone; hvx Eqs 2 and 3, and
every score. Where the table does not say that they are frozen, the peers' weights ask for gradients, as
PyTorch loads them; pytorch-grad-cam computes these too, captum does not.

On {machine}.

| | required | measured |
|---|---|---|
{table}

| | explanations per second |
|---|---|
{rates}

The matrix rates are those of PyTorch's product of two matrices of 2048×2048, measured in each turn:
{matrices} GFLOP/s. An explanation's share of them counts the FLOPs of a forward pass ({flops} G) once for
{questions} questions, and those of a backward pass, which are as many, once for each. `hvx explain` is timed
from when its model is loaded to its last file. Memory is resident memory at its peak, in a process of its own
for each, after the same work was done once. The pipeline is `scripts/benchmark_pipeline.py`: a run whose
network answers at once, with photographs of 640×480 pixels to decode and heat maps of 448×448 in float16
with two glimpses to write; milliseconds are of a CPU core for each explanation. `hvx measure` measures the
run of `make reproduce` (999 explanations, 17 methods), if there is one.

What was tried for rows that are missed:

- bfloat16 and its share of the matrix rate: [engine.md](engine.md) lists the attempts, kept or not.
- The writer thread: `scripts/measure_writer.py`, alone on the AMD machine: HDF5's write 0.26 ms for each heat
  map, with its Fletcher-32 checksum 0.36, SHA-256 of the file 0.26. Both checksums stay: the first is checked
  when a single map is read, the second when a run is verified. In a run it shares the memory's bandwidth with
  the other threads, and the file's pages are new: 0.81 to 1.29 ms on one machine within two hours, half of
  them the system's.
- `hvx explain` over the network: 1.081 in the process that took the turns before; three runs in a process of
  its own 1.054, 1.056, 1.060 (1.070 to 1.094 before Eq. 9 was computed over contiguous channels).
- Memory: two images pass together in a thread, for Winograd's algorithm; one at a time takes 80 to 103 MB and
  1.05 times as long. Positions of the max-pool's values in 16 bits in place of 64 changed nothing: 113 to
  126 MB with them, 104 to 118 without, three runs of this row each.
- The main thread, where it is missed: a heat map is read once from memory and written once. 0.35 to 0.46 ms
  within two hours on one machine.
- `hvx gallery`, where it is missed: 57 to 61 s on the AMD machines.
- `hvx measure`: all methods use the fused engine, questions on one image share the passes along the path of
  integrated gradients, the bootstrap's draws are drawn once, and a question is encoded once for all of its
  masked images. Half of the time are the 47,600 forward passes of deletion and insertion, at the rate of
  oneDNN's convolutions (`python -m cProfile -s cumtime -m hvx measure RUN`).
- `hvx reproduce`: half of the time is the training of the backbone, whose convolutions run at the machine's
  rate. Five whole runs within two hours on one machine: 3 min 48 s to 4 min 18 s. Large pages for glibc's
  malloc (`GLIBC_TUNABLES=glibc.malloc.hugetlb=1`) were in the fastest and in the slowest of them: what they
  gain is less than what the machine's speed varies.
- `make test`, not in the table (required 5 min): 6,226 tests in 10 min 5 s on the AMD machine. A hundred of
  them take half of the time, most of which start processes: of Ray, of browsers, of `hvx` itself. These are
  forked from one that has imported PyTorch (`tests/preloaded.py`), where the process is not what is tested:
  four files took 66 s in place of 119. Three test processes at once were slower, and under that load Ray
  declares living workers dead.
"""

MATRICES = {"sgemm": torch.float32, "bf16 gemm": torch.bfloat16}
"""Products of matrices whose rates hvx's are compared with."""


@dataclass(frozen=True)
class Figures:
    """What a benchmark measured.

    Attributes:
        device: on which.
        images: a batch of hvx, in words.
        questions: asked of each image.
        alone: explanations by a peer in each turn.
        flops: of a forward pass of one image through the backbone.
        difference: of the fused engine's gradient from the plain one's, relative.
        rates: explanations per second by name, and FLOP/s of ``MATRICES``, turn by turn.
        overhead: seconds of a whole run over those in the network.
        memory: MB per image by name; empty where it was not measured.
        long_question: seconds of a batch with a question of 200 tokens over those without it.
        commands: CPU seconds of commands that need no PyTorch, by name.
        gallery: CPU seconds of a gallery of 10,000 explanations; None if there are no photographs.
        measure: CPU seconds of `hvx measure` with its defaults; None if there is no run.
        reproduce: seconds of the reproduction that made this run; None if none did.
        pipeline: explanations per second without a network, and CPU milliseconds for each by thread.
    """

    device: torch.device
    images: str
    questions: int
    alone: int
    flops: int
    difference: float
    rates: dict[str, list[float]]
    overhead: float
    memory: dict[str, float]
    pipeline: dict[str, float]
    long_question: float
    commands: dict[str, float]
    gallery: float | None
    measure: float | None
    reproduce: float | None

    def ratios(self, name: str, other: str) -> list[float]:
        return [a / b for a, b in zip(self.rates[name], self.rates[other], strict=True)]

    def shares(self, name: str, matrix: str) -> list[float]:
        """Of the FLOP/s of a product of matrices; a backward pass to the image counts as a forward one."""
        each = self.flops / self.questions + self.flops
        return [each * rate for rate in self.ratios(name, matrix)]


def spread(values: list[float], digits: int = 2) -> str:
    """Median (least to largest)."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def page(figures: Figures) -> str:
    batched = f"captum, {figures.alone} at once, weights frozen"
    rows = [
        ("float32 ÷ captum, a batch, frozen", "≥ 2.4", spread(figures.ratios("hvx", batched))),
        ("bfloat16 ÷ captum, a batch, frozen", "≥ 4.6", spread(figures.ratios("hvx bfloat16", batched))),
        ("float32 ÷ captum, one at a time", "≥ 2.0", spread(figures.ratios("hvx", "captum"))),
        ("float32 ÷ pytorch-grad-cam", "≥ 3.5", spread(figures.ratios("hvx", "grad-cam"))),
        ("float32 ÷ pytorch-grad-cam, frozen", "", spread(figures.ratios("hvx", "grad-cam, weights frozen"))),
        ("float32, share of the sgemm rate", "≥ 0.80", spread(figures.shares("hvx", "sgemm"))),
        (
            "bfloat16, share of the bf16 matrix rate",
            "≥ 0.90",
            spread(figures.shares("hvx bfloat16", "bf16 gemm")),
        ),
        ("time of `hvx explain` over time in the network", "≤ 1.08", f"{figures.overhead:.3f}"),
    ]
    if figures.memory:
        own, captum, cam = (figures.memory[name] for name in ("hvx", "captum", "grad-cam"))
        peers = f"{own:.0f} MB; captum {captum:.0f}, pytorch-grad-cam {cam:.0f}"
        rows.append(("memory above the loaded model, per image in the batch", "≤ 110 MB", peers))
    cost = figures.pipeline
    rows += [
        ("`hvx explain` without a network, per second", "≥ 450", f"{cost['rate']:.0f}"),
        *(
            (f"its {name}", f"≤ {most} ms", f"{cost[key]:.2f} ms")
            for name, key, most in (
                ("main thread", "main", 0.4),
                ("writer thread", "writer", 0.6),
                ("decoders", "decoders", 1.8),
            )
        ),
        ("a batch with a question of 200 tokens ÷ without it", "≤ 1.5", f"{figures.long_question:.2f}"),
        *((f"`{name}`, CPU", "≤ 0.3 s", f"{cpu:.2f} s") for name, cpu in figures.commands.items()),
        ("difference from the plain engine, relative", "≤ 1e-4", f"{figures.difference:.1e}"),
    ]
    if figures.gallery is not None:
        rows.append(("`hvx gallery`, 10,000 explanations, CPU", "≤ 60 s", f"{figures.gallery:.0f} s"))
    if figures.measure is not None:
        rows.append(("`hvx measure`, 1,000 explanations, CPU", "≤ 240 s", f"{figures.measure:.0f} s"))
    if figures.reproduce is not None:
        rows.append(("`make reproduce`, its stages", "≤ 240 s", f"{figures.reproduce:.0f} s"))
    table = [f"| {' | '.join(row)} |" for row in rows]
    rates = [f"| {name} | {spread(own, 3)} |" for name, own in figures.rates.items() if name not in MATRICES]
    matrices = ", ".join(
        f"{name} {spread([rate / 1e9 for rate in figures.rates[name]], 0)}" for name in MATRICES
    )
    return PAGE.format(
        date=time.strftime("%Y-%m-%d"), images=figures.images, questions=figures.questions,
        turns=len(figures.rates["hvx"]), alone=figures.alone, machine=_machine(figures.device),
        table="\n".join(table), rates="\n".join(rates), matrices=matrices, flops=f"{figures.flops / 1e9:.0f}",
    )  # fmt: skip


def _machine(device: torch.device) -> str:
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        name = models[0] if models else name
    what = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{cpus()} CPU cores ({name})"
    packages = ("torch", "torchvision", "captum", "grad-cam")
    versions = ", ".join(f"{package} {version(package).partition('+')[0]}" for package in packages)
    return f"{what}, {torch.get_num_threads()} threads, Python {platform.python_version()}, {versions}"
