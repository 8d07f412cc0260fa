"""The lean engine: guided backpropagation through a frozen network, of which masks of its ReLUs are kept."""

from hvx.explain.lean.network import LeanNetwork, LeanPullback

__all__ = ["LeanNetwork", "LeanPullback"]
