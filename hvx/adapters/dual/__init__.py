"""Dual encoders over whole splits: an image tower, a text tower, and a score Σ v ∘ t of their outputs."""
