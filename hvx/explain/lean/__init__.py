"""The lean engine: guided backpropagation through a frozen network that saves only masks of its ReLUs."""

from hvx.explain.lean.network import LeanNetwork, LeanPullback

__all__ = ["LeanNetwork", "LeanPullback"]
