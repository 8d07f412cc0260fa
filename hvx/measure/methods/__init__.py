"""Saliency methods that are compared."""
