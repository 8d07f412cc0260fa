"""The measured methods: names, definitions, and which are available.

All methods except Eq. 2, its variants and the attention explain the logit of the run's answer.
Gradients at the pixels are summed as Σ_c |·| over the color channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from hvx.errors import HvxError, did_you_mean

PROPOSED, ATTENTION = "proposed", "attention"
SPECIFIC, SPECIFIC_ATTENTION = "question-specific", "question-specific-attention"

OF_ATTENTION = (ATTENTION, SPECIFIC_ATTENTION, "grad-cam-attention")
"""Methods that need the network's attention."""
PATH_STEPS = 16
"""Points on the path of integrated gradients (Gauss-Legendre)."""
Family = Literal["run", "specific", "head", "plain", "guided", "path", "floor"]
"""What methods share: the run's own maps; maps of the image's other questions; the head alone; one forward
pass, plain or guided; a path of images; nothing (baselines)."""


@dataclass(frozen=True)
class Method:
    """A method's title in tables, its family, and its definition."""

    title: str
    family: Family
    definition: str


METHODS: dict[str, Method] = {
    PROPOSED: Method("Proposed (Eq. 2)", "run", "guided backpropagation of V − F, F constant; Σ_c |Eq. 9|"),
    ATTENTION: Method("Summed attention", "run", "Σ_g α_g"),
    SPECIFIC: Method(
        "Question-specific (Eq. 2)",
        "specific",
        "the proposed map over its mean, less the mean of those of the image's other questions",
    ),
    SPECIFIC_ATTENTION: Method(
        "Question-specific attention",
        "specific",
        "Σ_g α_g over its mean, less the mean of those of the image's other questions",
    ),
    "unguided": Method("Eq. 2 unguided", "plain", "as proposed, by true gradients"),
    "free-product": Method(
        "Eq. 2 with F free", "guided", "as proposed, of ½‖V − F‖² with F = Q ∘ V not held"
    ),
    "grad-cam": Method("Grad-CAM", "head", "max(0, Σ_m mean_s(∂y/∂f_ms) f_ms); Selvaraju et al. 2017"),
    "grad-cam-attention": Method("Grad-CAM × attention", "head", "Grad-CAM, cell by cell times Σ_g α_g"),
    "hirescam": Method("HiResCAM", "head", "max(0, Σ_m f_ms ∂y/∂f_ms); Draelos and Carin 2020"),
    "cam": Method(
        "CAM",
        "head",
        "Σ_m f_ms ∂y/∂f_ms, the attention held: pooling weights and head, linear at f; Zhou et al. 2016",
    ),
    "guided-grad-cam": Method(
        "Guided Grad-CAM", "guided", "guided backpropagation × Grad-CAM; Selvaraju et al. 2017"
    ),
    "guided-backpropagation": Method("Guided backpropagation", "guided", "of y; Springenberg et al. 2015"),
    "gradient": Method("Gradient", "plain", "∂y/∂I; Simonyan et al. 2014"),
    "input-x-gradient": Method("Input × gradient", "plain", "I ∘ ∂y/∂I; Shrikumar et al. 2017"),
    "integrated-gradients": Method(
        "Integrated gradients",
        "path",
        f"from the mean color, {PATH_STEPS} steps; Sundararajan et al. 2017",
    ),
    "center": Method("Center", "floor", "a Gaussian in the middle, σ a quarter of the side"),
    "random": Method("Random", "floor", "uniform noise for each pixel"),
}
"""In the order of tables. y is the answer's logit, f the features (M channels, grid cells s)."""


def chosen(names: Iterable[str], glimpses: int) -> list[str]:
    """Names of methods in the tables' order, always with the proposed one; all if no name is given.

    Raises:
        HvxError: no such method, or the attention of a model that has none.
    """
    wanted = set(names)
    check_known(sorted(wanted))
    unavailable = next((name for name in OF_ATTENTION if name in wanted and not glimpses), None)
    if unavailable:
        raise HvxError(f"--methods: the run is of a model without attention; leave '{unavailable}' out")
    wanted = (wanted or set(METHODS)) | {PROPOSED}
    return [name for name in METHODS if name in wanted and (glimpses or name not in OF_ATTENTION)]


def in_order(names: Iterable[str], glimpses: int, about: str = "--methods") -> list[str]:
    """Names of methods in the given order: the columns of a figure.

    Args:
        names: at least one, without duplicates.
        glimpses: number of attention maps of the network.
        about: prefix of errors: an option, a run, an argument.

    Raises:
        HvxError: no such method, none, one twice, or the attention of a network that has none.
    """
    methods = list(names)
    check_known(methods, about)
    if not methods:
        raise HvxError(f"{about}: names no method; known are: {', '.join(METHODS)}")
    duplicate = next((name for name in methods if methods.count(name) > 1), None)
    if duplicate:
        raise HvxError(f"{about}: '{duplicate}' is named twice")
    unavailable = next((name for name in methods if name in OF_ATTENTION and not glimpses), None)
    if unavailable:
        raise HvxError(f"{about}: the network has no attention; leave '{unavailable}' out")
    return methods


def check_known(names: Iterable[str], about: str = "--methods") -> None:
    for name in names:
        if name not in METHODS:
            known = ", ".join(METHODS)
            raise HvxError(f"{about}: no method '{name}'{did_you_mean(name, METHODS)}; known are: {known}")
