"""Models that hvx has never seen: their own forward, and the Hadamard products found in it."""
