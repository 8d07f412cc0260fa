"""Counts the CUDA kernels of the fused engine, and estimates its speed on a GPU that is not at hand.

python scripts/count_kernels.py --batch 32 --questions 5

The kernels are those that scripts/kernel_trace.py records. They are merged as other implementations would
merge them. The estimate is a roofline: each kernel takes its time for memory or its time for arithmetic,
whichever is longer. It leaves out the head, the copies from and to the CPU, and the time to launch a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

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


VARIANTS: dict[str, Merge] = {
    "eager, as today": separate,
    "cuDNN's epilogues, forward": cudnn_epilogues,
    "cuDNN's epilogues, both passes": cudnn_epilogues_in_both,
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

    name: str = "H100 SXM"
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


@click.command()
@click.option("--architecture", default="resnet152", show_default=True)
@click.option("--node", default="layer4", show_default=True)
@click.option("--batch", default=32, show_default=True, help="Images.")
@click.option("--size", default=448, show_default=True, help="Their height and width.")
@click.option("--questions", default=5, show_default=True, help="On each image.")
@click.option("--memory-rate", default=3350.0, show_default=True, help="GB/s.")
@click.option("--bf16-rate", default=989.0, show_default=True, help="TFLOP/s.")
@click.option("--tf32-rate", default=494.0, show_default=True, help="TFLOP/s.")
@click.option("--fp32-rate", default=67.0, show_default=True, help="TFLOP/s.")
@click.option("--memory-efficiency", default=GPU.memory_efficiency, show_default=True)
@click.option("--matrix-efficiency", default=GPU.matrix_efficiency, show_default=True)
def main(architecture: str, node: str, batch: int, size: int, questions: int, **rates: float) -> None:
    """Print the count and the estimate; the defaults are an H100's (SXM)."""
    matrix = {
        name: rates[option] * 1e12
        for name, option in (
            ("bfloat16", "bf16_rate"), ("float32, TF32", "tf32_rate"), ("float32", "fp32_rate"),
        )
    }  # fmt: skip
    efficiency = rates["memory_efficiency"], rates["matrix_efficiency"]
    gpu = GPU("", rates["memory_rate"] * 1e9, matrix, *efficiency)
    config = BackboneConfig(architecture=architecture, node=node)
    network = cut_network(config, new_network(architecture, empty=True))
    click.echo(table(rows(network, gpu, batch, size, questions)))


if __name__ == "__main__":
    main()
