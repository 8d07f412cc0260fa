"""hvx: visual explanations from the Hadamard product of visual question answering networks.

Implements *Visual Explanations from Hadamard Product in Multimodal Deep Networks* (Kim & Zhang,
2017) over whole splits. The folders are the stages of the pipeline, in order: ``data``, ``models``,
``explain``, ``store``, ``run``, ``view``, ``capture``, ``measure``, ``compare``, ``train``; ``cli`` is a
thin layer over them. From Python: ``load_model`` and ``Explainer`` for hvx's own models, ``explain_product``
for any other.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hvx.adapters.adapter import Adapter, ModelInputs
    from hvx.api import Explainer, Explanation, load_model
    from hvx.capture.equations import explain_joint
    from hvx.capture.forward import ForwardPass, forward_pass
    from hvx.capture.products import explain_product, explain_products, find_products
    from hvx.capture.records import Product
    from hvx.capture.result import ProductExplanation
    from hvx.capture.smooth import SmoothGrad
    from hvx.errors import BadImage, HvxError
    from hvx.models.checkpoint import VQAModel
    from hvx.opened_run import Run, RunItem, open_run
    from hvx.view.style import FigureStyle

__version__ = "0.1.0"

_HOMES = {
    "Adapter": "hvx.adapters.adapter",
    "BadImage": "hvx.errors",
    "Explainer": "hvx.api",
    "Explanation": "hvx.api",
    "FigureStyle": "hvx.view.style",
    "ForwardPass": "hvx.capture.forward",
    "HvxError": "hvx.errors",
    "ModelInputs": "hvx.adapters.adapter",
    "Product": "hvx.capture.records",
    "ProductExplanation": "hvx.capture.result",
    "Run": "hvx.opened_run",
    "RunItem": "hvx.opened_run",
    "SmoothGrad": "hvx.capture.smooth",
    "VQAModel": "hvx.models.checkpoint",
    "explain_joint": "hvx.capture.equations",
    "explain_product": "hvx.capture.products",
    "explain_products": "hvx.capture.products",
    "find_products": "hvx.capture.products",
    "forward_pass": "hvx.capture.forward",
    "load_model": "hvx.api",
    "open_run": "hvx.opened_run",
}
"""Public names → their modules, imported on first use, since importing PyTorch takes seconds."""

__all__ = [
    "Adapter",
    "BadImage",
    "Explainer",
    "Explanation",
    "FigureStyle",
    "ForwardPass",
    "HvxError",
    "ModelInputs",
    "Product",
    "ProductExplanation",
    "Run",
    "RunItem",
    "SmoothGrad",
    "VQAModel",
    "__version__",
    "explain_joint",
    "explain_product",
    "explain_products",
    "find_products",
    "forward_pass",
    "load_model",
    "open_run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hvx' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
