"""The fused engine: guided backpropagation through a frozen network that saves only masks of its ReLUs."""

from hvx.explain.fused.network import FusedGuidedBackbone, FusedGuidedVJP

__all__ = ["FusedGuidedBackbone", "FusedGuidedVJP"]
