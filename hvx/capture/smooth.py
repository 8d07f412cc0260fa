"""SmoothGrad (Smilkov et al., 2017) of Eq. 2, by Captum: its mean over copies of the image with noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hvx.errors import HvxError
from hvx.extras import require


@dataclass(frozen=True)
class SmoothGrad:
    """How Eq. 2 is averaged over noisy images.

    Attributes:
        samples: noisy copies of each image, each with its own forward and backward pass.
        noise: standard deviation of the noise, as a share of each image's range of values.
        seed: of the noise.
    """

    samples: int = 25
    noise: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise HvxError(f"smooth: samples={self.samples}; expected 1 or more")
        if not 0 < self.noise < float("inf"):
            raise HvxError(f"smooth: noise={self.noise}; expected a share of the image's range, such as 0.15")


def mean_over_noise(gradient: Callable[[Tensor], Tensor], image: Tensor, smooth: SmoothGrad) -> Tensor:
    """The mean of a function of the image over noisy copies, (N, …).

    The state of the random number generators is preserved.

    Args:
        gradient: of an image as ``image``; (N, …).
        image: (B, …).

    Raises:
        HvxError: Captum is not installed.
    """
    require("measure", "smooth", "captum")
    from captum.attr import Attribution, NoiseTunnel
    from captum.log import log_usage

    axes = tuple(range(1, image.ndim))
    # Captum takes one standard deviation for all images: scale each to a range of 1 for Captum.
    span = (image.amax(axes, keepdim=True) - image.amin(axes, keepdim=True)).detach()

    class OfNoisy(Attribution):  # type: ignore[misc]
        @log_usage()  # type: ignore[untyped-decorator]  # NoiseTunnel calls what it wraps
        def attribute(self, inputs: Tensor, **_: Any) -> Tensor:
            return gradient(inputs * span)

    devices = [image.device.index or 0] if image.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(smooth.seed)
        mean: Tensor = NoiseTunnel(OfNoisy(gradient)).attribute(
            image.detach() / span.clamp_min(torch.finfo(image.dtype).tiny),
            nt_samples=smooth.samples, nt_samples_batch_size=1, stdevs=smooth.noise,
        )  # fmt: skip
    return mean
