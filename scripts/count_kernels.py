"""Counts the CUDA kernels of the fused engine, and estimates its speed on a GPU that is not at hand.

python scripts/count_kernels.py --batch 32 --questions 5

The kernels are those that scripts/kernel_trace.py records. They are merged as other implementations would
merge them. The estimate is a roofline: each kernel takes its time for memory or its time for arithmetic,
whichever is longer. It leaves out the head, the copies from and to the CPU, and the time to launch a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import torch
from kernel_trace import Kernel, Pass, trace
from torch import fx

from hvx.config import BackboneConfig
from hvx.models.backbone import cut_network, new_network


@dataclass
class Count:
    """Kernels of a pass after merging: bytes and FLOPs of each."""

    bytes: list[int] = field(default_factory=list)
    flops: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.bytes)


Merge = Callable[[Sequence[Kernel]], list[list[Kernel]]]


def separate(kernels: Sequence[Kernel]) -> list[list[Kernel]]:
    """Each operation is a kernel of its own."""
    return [[kernel] for kernel in kernels]


def cudnn_epilogues(kernels: Sequence[Kernel], backward: bool = False) -> list[list[Kernel]]:
    """Convolution, bias, sum and ReLU in one, as ``cudnn_convolution_relu`` and ``…_add_relu`` do.

    Args:
        kernels: in order.
        backward: also for convolutions without a bias: those of the backward pass.
    """
    groups: list[list[Kernel]] = []
    rest = list(kernels)
    while rest:
        length = 1
        if rest[0].has_epilogue:
            follows = [kernel.name if kernel.writes == rest[0].writes else "" for kernel in rest[1:4]]
            patterns = [("bias", "clamp_"), ("bias", "add_", "clamp_")]
            patterns += [("clamp_",), ("add_", "clamp_")] if backward else []
            length += max((len(p) for p in patterns if tuple(follows[: len(p)]) == p), default=0)
        groups.append(rest[:length])
        rest = rest[length:]
    return groups


def cudnn_epilogues_in_both(kernels: Sequence[Kernel]) -> list[list[Kernel]]:
    """``cudnn_epilogues``, also in the backward pass."""
    return cudnn_epilogues(kernels, backward=True)


def everything(kernels: Sequence[Kernel]) -> list[list[Kernel]]:
    """Each pointwise operation is computed in the kernel that computes its latest input."""
    groups: list[list[Kernel]] = []
    producer: dict[int, int] = {}
    for kernel in kernels:
        index = max((producer[place] for place in kernel.reads if place in producer), default=len(groups))
        between = [other for group in groups[index + 1 :] for other in group]
        # Not if another kernel still needs the value that this one overwrites.
        overwrites = any(place in other.reads for other in between for place in kernel.writes)
        if kernel.pointwise and index < len(groups) and not overwrites:
            groups[index].append(kernel)
        else:
            index = len(groups)
            groups.append([kernel])
        producer |= dict.fromkeys(kernel.writes, index)
    return groups


HEADING = "## On paper: "
SECTION = """{heading}{gpu}

An estimate, not a measurement: none of this has run on a GPU. `scripts/count_kernels.py` runs both passes
of hvx over ResNet-152 on PyTorch's fake CUDA tensors, {batch} images of {size}×{size} pixels, and records
each operation. Kernels, GB read and written, and TFLOP are those of a forward pass + those of one backward
pass with Eq. 9 and the heat map. Each kernel takes its time for memory or for arithmetic, the longer:
memory at {memory:.2f} TB/s × {memory_efficiency}, convolutions at {matrix} TFLOP/s
× {matrix_efficiency}. These two shares are assumptions. The head, copies from and to the CPU, and the time to
launch kernels are left out. Each image has {questions} questions.

{table}

On a GPU hvx uses cuDNN's convolutions with fused sum and ReLU where a check of their results succeeds; in the
backward pass for the transposes of stride 1. If cuDNN has no such kernel, the first row applies. "Everything
fused" also applies and writes the masks of ReLUs within the convolutions; hvx has no such kernels.
"""

VARIANTS: dict[str, Merge] = {
    "separate kernels": separate,
    "sum and ReLU in cuDNN's kernel, forward": cudnn_epilogues,
    "the same in both passes, as in hvx": cudnn_epilogues_in_both,
    "everything fused": everything,
}


def count(traced: Pass, merge: Merge = separate) -> Count:
    """Bytes and FLOPs of each kernel: memory that only one kernel uses costs nothing."""
    groups, result = merge(traced.kernels), Count()
    readers: dict[int, int] = {}
    for index, group in enumerate(groups):
        readers |= {place: index for kernel in group for place in kernel.reads}
    for index, group in enumerate(groups):
        reads: dict[int, int] = {}
        writes: dict[int, int] = {}
        for kernel in group:
            reads |= {place: size for place, size in kernel.reads.items() if place not in writes}
            writes |= kernel.writes
        needed = traced.results | {p for p in writes if readers.get(p, len(groups)) > index}
        written = sum(size for place, size in writes.items() if len(group) == 1 or place in needed)
        result.bytes.append(sum(reads.values()) + written)
        result.flops.append(sum(kernel.flops for kernel in group))
    return result


@dataclass(frozen=True)
class GPU:
    """Rates of a GPU, per second, and the shares of them that kernels are assumed to reach.

    Attributes:
        memory: bytes.
        matrix: FLOPs of matrix products by precision, without sparsity.
        memory_efficiency, matrix_efficiency: shares, of a large copy and of a convolution.
    """

    name: str = "an H100"
    memory: float = 3.35e12
    matrix: dict[str, float] = field(
        default_factory=lambda: {"bfloat16": 989e12, "float32, TF32": 494e12, "float32": 67e12}
    )
    memory_efficiency: float = 0.8
    matrix_efficiency: float = 0.5

    def seconds(self, counted: Count, precision: str) -> float:
        """The kernels one after the other: each takes its time for memory or for arithmetic."""
        memory = self.memory * self.memory_efficiency
        matrix = self.matrix[precision] * self.matrix_efficiency
        return sum(
            max(size / memory, flops / matrix)
            for size, flops in zip(counted.bytes, counted.flops, strict=True)
        )


@dataclass(frozen=True)
class Row:
    """A variant in one precision: the count of each pass, and explanations per second."""

    precision: str
    variant: str
    counts: dict[str, Count]
    rate: float


def rows(
    network: fx.GraphModule, gpu: GPU, batch: int = 32, size: int = 448, questions: int = 5
) -> Iterator[Row]:
    """Each precision in each variant."""
    for precision in gpu.matrix:
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        passes = trace(network, dtype, batch, size)
        for variant, merge in VARIANTS.items():
            counts = {name: count(traced, merge) for name, traced in passes.items()}
            spent = {name: gpu.seconds(counted, precision) for name, counted in counts.items()}
            seconds = spent["forward"] + questions * (spent["backward"] + spent["scores"])
            yield Row(precision, variant, counts, batch * questions / seconds)


def table(counted: Iterable[Row]) -> str:
    """As Markdown; of each number, that of the forward pass + that of one backward pass with its scores."""
    lines = [
        "| | kernels | GB | TFLOP | explanations per second |",
        "|---|---|---|---|---|",
    ]
    for row in counted:
        forward, backward, scores = (row.counts[name] for name in ("forward", "backward", "scores"))
        cells = [
            f"{row.precision}: {row.variant}",
            f"{len(forward)} + {len(backward) + len(scores)}",
            f"{sum(forward.bytes) / 1e9:.1f} + {(sum(backward.bytes) + sum(scores.bytes)) / 1e9:.1f}",
            f"{sum(forward.flops) / 1e12:.2f} + {sum(backward.flops) / 1e12:.2f}",
            f"{row.rate:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def section(gpu: GPU, batch: int = 32, size: int = 448, questions: int = 5) -> str:
    """The section of docs/benchmarks.md, for ResNet-152."""
    network = cut_network(BackboneConfig(), new_network(BackboneConfig().architecture, empty=True))
    matrix = ", ".join(f"{rate / 1e12:.0f} ({name})" for name, rate in gpu.matrix.items())
    return SECTION.format(
        heading=HEADING, gpu=gpu.name, batch=batch, size=size, questions=questions, matrix=matrix,
        memory=gpu.memory / 1e12, memory_efficiency=gpu.memory_efficiency,
        matrix_efficiency=gpu.matrix_efficiency, table=table(rows(network, gpu, batch, size, questions)),
    )  # fmt: skip


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Replace the section in this page.")
@click.option("--batch", default=32, show_default=True, help="Images.")
@click.option("--size", default=448, show_default=True, help="Their height and width.")
@click.option("--questions", default=5, show_default=True, help="On each image.")
@click.option("--gpu", default=GPU.name, show_default=True, help="Its name, in the heading.")
@click.option("--memory-rate", default=3350.0, show_default=True, help="GB/s.")
@click.option("--matrix-rates", default=(989.0, 494.0, 67.0), show_default=True, type=(float, float, float),
              help="TFLOP/s in bfloat16, in float32 with TF32, in float32 without.")  # fmt: skip
@click.option("--memory-efficiency", default=GPU.memory_efficiency, show_default=True)
@click.option("--matrix-efficiency", default=GPU.matrix_efficiency, show_default=True)
def main(
    output: Path | None, batch: int, size: int, questions: int, gpu: str, memory_rate: float,
    matrix_rates: tuple[float, ...], memory_efficiency: float, matrix_efficiency: float,
) -> None:  # fmt: skip
    """Print the count and the estimate; the defaults are an H100's (SXM)."""
    matrix = {name: rate * 1e12 for name, rate in zip(GPU().matrix, matrix_rates, strict=True)}
    chosen = GPU(gpu, memory_rate * 1e9, matrix, memory_efficiency, matrix_efficiency)
    text = section(chosen, batch, size, questions)
    click.echo(text)
    if output:
        page = output.read_text(encoding="utf-8").partition(HEADING)[0].rstrip()
        output.write_text(f"{page}\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
