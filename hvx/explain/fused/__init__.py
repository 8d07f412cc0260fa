"""The fused engine: guided backpropagation through a frozen network that saves only masks of its ReLUs."""

from hvx.explain.fused.network import LeanNetwork, LeanPullback

__all__ = ["LeanNetwork", "LeanPullback"]
